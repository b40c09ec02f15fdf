"""GPU clusters wherever SkyPilot reaches: Kubernetes, Slurm, any cloud."""

from controller.backends.skypilot.backend import SkyPilot
from controller.backends.skypilot.provisioning import Plan
from controller.backends.skypilot.recipe import ANY, Recipe, read
from controller.backends.skypilot.sdk import Record, Sdk, load

__all__ = ["ANY", "Plan", "Recipe", "Record", "Sdk", "SkyPilot", "load", "read"]
