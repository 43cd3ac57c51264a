"""For schemathesis, which knows no lines of JSON: a body of them is a text."""

import schemathesis

schemathesis.serializer.alias("application/x-ndjson", "text/plain")
