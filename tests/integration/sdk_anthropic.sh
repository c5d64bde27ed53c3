#!/bin/bash
# The official Anthropic client for node drives a served model: messages, streams, tools, counting, errors, abort.
set -eu
. "$(dirname "$0")/sdk/run.sh"
run_tour sdk-anthropic @anthropic-ai/sdk
