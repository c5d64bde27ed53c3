# A key for zsh: Alt-o takes what is on the command line as a question and puts the suggested command in its place.
# Nothing is run; Ctrl-_ brings the question back. To use it, in ~/.zshrc:
#
#     OCAI_KEY='\eo'      # another key, if you like: as bindkey takes it
#     . /usr/share/ocai/shell/ocai.zsh

# What ocai says on standard error is kept and shown by the line editor below the line, so that nothing is garbled.
_ocai_suggest() {
	emulate -L zsh
	local out
	local -a parts
	[[ $BUFFER == *[^[:space:]]* ]] || return 0
	# Ctrl-C ends ocai, and the question stays.
	setopt local_traps
	trap : INT
	zle -R 'ocai ...'
	# The answer, a zero byte, the exit status, a zero byte, the words of the error.
	out=$({
		local errors
		errors=$(command ocai cmd --print -- "$BUFFER" 2>&1 >&3 3>&- </dev/null)
		print -rn -- $'\0'$?$'\0'"$errors"
	} 3>&1)
	parts=("${(@0)out}")
	if [[ $parts[2] == 0 && -n $parts[1] ]]; then
		BUFFER=${parts[1]%$'\n'}
		CURSOR=${#BUFFER}
		zle -M ''
	else
		zle -M -- "$parts[3]"
	fi
}

# Only where a person edits lines.
if [[ -o interactive && -o zle ]]; then
	zle -N _ocai_suggest
	() {
		local map
		for map in emacs viins vicmd; do
			bindkey -M $map ${OCAI_KEY:-'\eo'} _ocai_suggest
		done
	}
fi
