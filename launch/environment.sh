# Creates or reuses .venv in the repository's root, installs the given requirement files and activates it.
# Usage: . launch/environment.sh requirements.txt [more requirement files]
# The hash of each installed file is recorded, so that a second run installs nothing.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-python3}
"$python" - <<'EOF' || exit 1
import sys
if sys.version_info < (3, 11):
    sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; set PYTHON=/path/to/a/newer/python3")
EOF
[ -x .venv/bin/python ] || "$python" -m venv .venv
. .venv/bin/activate
for file in "$@"; do
  mark=.venv/$(echo "$file" | tr / _).sha256
  if ! sha256sum --status --check "$mark" 2>/dev/null; then
    pip install --quiet --disable-pip-version-check -r "$file"
    sha256sum "$file" > "$mark"
  fi
done
