#!/usr/bin/env bash
# Runs what stands in this folder against the real binary, after installing what it
# needs: the suites of openai-go (clients/) and of openai, the AI SDK and LangChain for
# Node (node/), and the scenarios. With arguments, go test gets those instead, such as:
# e2e/test.sh -v -run TestChat ./clients
set -euo pipefail
cd "$(dirname "$0")"

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq nodejs npm >/dev/null
  else
    echo "e2e: node 20 or later and npm are needed; install them" >&2
    exit 1
  fi
fi
major=$(node -p 'process.versions.node.split(".")[0]')
if [ "$major" -lt 20 ]; then
  echo "e2e: node is $(node --version); the clients need 20 or later" >&2
  exit 1
fi

# What npm ci leaves behind tells whether the lock file has changed since.
if ! [ node/package-lock.json -ot node/node_modules/.package-lock.json ]; then
  (cd node && npm ci --no-audit --no-fund --loglevel=error)
fi
# One package after the other: some of them measure.
exec "${GO:-go}" test -count=1 -p 1 -timeout 600s "${@:-./...}"
