# Alt-o: what is on the command line is a question; the suggested command takes its place. Nothing is run.
# Use: source this file in ~/.zshrc.
_ocai_suggest() {
	local command
	[[ -n $BUFFER ]] || return
	command=$(ocai cmd --print -- "$BUFFER" </dev/null) || return
	BUFFER=$command
	CURSOR=${#BUFFER}
}
zle -N _ocai_suggest
bindkey '\eo' _ocai_suggest
