#!/usr/bin/env bash
# The clients that tests/python/test_clients.py runs against the service, in build/clients: CompreFace's SDKs for Python
# and JavaScript, and schemathesis. Does nothing where they are there.
set -euo pipefail
cd "$(dirname "$0")/../.."
readonly PLACE=build/clients
# The SDK of 2023 needs the older of both.
readonly SDK=(compreface-sdk==0.6.0 'urllib3<2' 'requests<2.32') SCHEMATHESIS=schemathesis==4.32.0
readonly JAVASCRIPT=@exadel/compreface-js-sdk@1.0.0

mkdir -p "$PLACE"
exec 9> "$PLACE/lock"
flock 9
wanted="${SDK[*]} $SCHEMATHESIS $JAVASCRIPT $(/usr/bin/python3 --version)"
if [[ -f $PLACE/made && $(< "$PLACE/made") == "$wanted" ]]; then exit 0; fi
rm -rf "$PLACE"/{made,sdk,schemathesis,node_modules,package.json,package-lock.json}
/usr/bin/python3 -m venv "$PLACE/sdk"
"$PLACE/sdk/bin/python" -m pip install --quiet --disable-pip-version-check "${SDK[@]}"
/usr/bin/python3 -m venv "$PLACE/schemathesis"
"$PLACE/schemathesis/bin/python" -m pip install --quiet --disable-pip-version-check "$SCHEMATHESIS"
echo '{"private": true, "type": "module"}' > "$PLACE/package.json"
(cd "$PLACE" && npm install --silent --no-audit --no-fund "$JAVASCRIPT")
echo "$wanted" > "$PLACE/made"
