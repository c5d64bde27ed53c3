# Alt-o: what is on the command line is a question; the suggested command takes its place. Nothing is run.
# Use: source this file in ~/.bashrc.
_ocai_suggest() {
	local command
	[[ -n $READLINE_LINE ]] || return
	command=$(ocai cmd --print -- "$READLINE_LINE" </dev/null) || return
	READLINE_LINE=$command
	READLINE_POINT=${#READLINE_LINE}
}
bind -x '"\eo": _ocai_suggest'
