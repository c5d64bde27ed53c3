#!/bin/bash
# The daemon killed at random points, its session lost, its disk full: the other half of flip_faults.sh.
FLIP_ONLY=${FLIP_ONLY:-full session kills} exec bash "$(dirname "$0")/flip_faults.sh"
