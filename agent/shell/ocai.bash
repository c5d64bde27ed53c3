# A key for bash: Alt-o takes what is on the command line as a question and puts the suggested command in its place.
# Nothing is run; Ctrl-_ brings the question back. To use it, in ~/.bashrc:
#
#     OCAI_KEY='\eo'      # another key, if you like: a readline key sequence
#     . /usr/share/ocai/shell/ocai.bash

# Readline takes the line off the screen while this runs and draws it again afterwards: what is written here, also the
# words of an error, stands above the prompt. The mark is drawn over by such words, or by blanks. A trap keeps Ctrl-C
# from taking the shell's line away: it ends ocai, and the question stays.
_ocai_suggest() {
	local command status trap
	[[ $READLINE_LINE == *[![:space:]]* ]] || return 0
	trap=$(trap -p INT)
	trap : INT
	printf 'ocai ...\r' >&2
	command=$(command ocai cmd --print -- "$READLINE_LINE" </dev/null)
	status=$?
	printf '          \r' >&2
	trap - INT
	eval "$trap"
	((status == 0)) && [[ -n $command ]] || return 0
	READLINE_LINE=$command
	# Beyond the end is the end; bash has counted bytes and, later, characters.
	READLINE_POINT=$((4 * ${#command}))
}

# Only where a person edits lines.
if [[ $- == *i* && ( -o emacs || -o vi ) ]]; then
	for _ocai_keymap in emacs-standard vi-insert vi-command; do
		bind -m "$_ocai_keymap" -x "\"${OCAI_KEY:-\\eo}\": _ocai_suggest"
	done
	unset _ocai_keymap
fi
