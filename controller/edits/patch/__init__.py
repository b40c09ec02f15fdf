"""Edits as agents write them (SEARCH/REPLACE blocks, unified diffs, whole files), and in words why one cannot be made.

An edit comes with whatever a model puts around it: prose, code fences, file names. It says by itself what it is:

- what Python can parse is the new file;
- lines `<<<<<<< SEARCH`, `=======`, `>>>>>>> REPLACE` make it blocks; all else around them is ignored. Where a line of
  the text itself looks like a marker, the block's three are written with another number of characters, 5 to 9;
- `@@ -1,3 +1,4 @@`, or `---` and `+++` lines, make it a diff. Hunks are found by their lines: the numbers only choose
  between several places;
- else the new file is in a ```python block.

Old lines are compared exactly but for white space at their ends and the kind of line end, which mean nothing to
Python; indentation does. A line that stays is left as the file has it, and new lines end as the file's lines do.
"""

from controller.edits.patch.applying import apply
from controller.edits.patch.checking import check
from controller.edits.patch.telling import BLOCK, FORMS, MAX_MESSAGE, PatchError

__all__ = ["BLOCK", "FORMS", "MAX_MESSAGE", "PatchError", "apply", "check"]
