#!/bin/bash
# The official openai client for node drives a served model: chat, streams, tools, structured output, responses,
# embeddings, errors, abort.
set -eu
. "$(dirname "$0")/sdk/run.sh"
run_tour sdk-openai openai
