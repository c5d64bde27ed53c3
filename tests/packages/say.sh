# Sourced by the scripts that run inside the machine.
fail() {
	echo "FAIL: $*"
	exit 1
}
ok() {
	echo "ok $*"
}
