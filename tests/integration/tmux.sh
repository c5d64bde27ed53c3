#!/bin/bash
# ocai inside tmux, a terminal that this project has not written: menu, edit, wide characters, paste, another size, and
# a screen that is as it was when the program has gone. The catalogue answers, so no model is needed; with the embedded
# one a conversation is tried, too.
set -u
cd "$(dirname "$0")/../.."
bin=$(realpath "${BUILD_DIR:-build/release}")/bin
[[ -x $bin/ocai ]] || { echo "no $bin/ocai"; exit 77; }
command -v tmux >/dev/null || { echo "no tmux"; exit 77; }

tmp=$(mktemp -d)
t() { tmux -S "$tmp/tmux" -f /dev/null "$@"; }
engines() {
	local p
	for p in /proc/[0-9]*; do
		tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -q "ocai-engine serve .*$tmp/run/ocai/engine.sock" && echo "${p#/proc/}"
	done | grep .
}
finish() {
	local pids
	t kill-server 2>/dev/null
	pids=$(engines) && kill $pids
	rm -rf "$tmp"
}
trap finish EXIT
fail() {
	echo "FAILED: $*"
	t capture-pane -p 2>/dev/null | sed 's/^/    | /'
	exit 1
}
# expect TEXT: until it is in the window
expect() {
	local i
	for ((i = 0; i < 2400; i++)); do
		t capture-pane -p 2>/dev/null | grep -qF -- "$1" && return
		sleep 0.05
	done
	fail "not in the window: $1"
}
# The cursor's row is this, with nothing behind it: a prompt that waits.
expect_prompt() {
	local i y
	for ((i = 0; i < 2400; i++)); do
		y=$(t display-message -p '#{cursor_y}')
		[[ $(t capture-pane -p -S "$y" -E "$y") == "$1" ]] && return
		sleep 0.05
	done
	fail "no prompt: $1"
}
keys() { t send-keys "$@"; }
# An empty screen with the shell's prompt at its top.
fresh() {
	local i
	typed "printf '\\033[H\\033[2J'"
	keys Enter
	for ((i = 0; i < 2400; i++)); do
		[[ $(t capture-pane -p | sed '/^$/d') == "ready>" ]] && return
		sleep 0.05
	done
	fail "the screen is not cleared"
}
typed() { t send-keys -l -- "$1"; }

mkdir -m 700 "$tmp/run" "$tmp/home"
mkdir -p "$tmp/home/.config/ocai"
printf '[engine]\nidle-exit = 60\n' >"$tmp/home/.config/ocai/ocai.conf"
env -i PATH="$bin:$PATH" HOME="$tmp/home" XDG_RUNTIME_DIR="$tmp/run" LANG=C.UTF-8 SHELL=/bin/sh ENV= PS1='ready> ' \
	OCAI_KNOWLEDGE_DIR="$PWD/agent/knowledge" ASAN_OPTIONS="${ASAN_OPTIONS:-}" \
	tmux -S "$tmp/tmux" -f /dev/null -u new-session -d -x 80 -y 30 -c "$tmp" /bin/sh || fail "tmux does not start"
expect_prompt "ready>"

# A menu with arrow keys; wide characters; the command edited in place, and run.
typed 'ocai cmd 查看磁盘使用情况'
keys Enter
expect "❯ [r] 执行"
expect "df "
keys Down
expect "❯ [e] 编辑"
keys Enter
expect '$ df '
keys C-u
typed 'printf "%s\n" 中文字符'
keys BSpace BSpace Left Left
typed '很好的'
keys Enter
expect '    printf "%s\n" 很好的中文'
expect "[r] 执行"
keys r
expect_prompt "ready>"
t capture-pane -p | grep -qx "很好的中文" || fail "the edited command did not run"

# A failure is offered to be mended; Escape leaves with the command's own code.
fresh
typed 'ocai cmd 查看磁盘使用情况; echo "code $?"'
keys Enter
expect "❯ [r] 执行"
keys e
expect '$ df '
keys C-u
typed 'ls /nowhere; exit 5'
keys Enter
expect "    ls /nowhere; exit 5"
expect "[r] 执行"
keys r
expect "退出码 5"
keys Escape
expect "code 5"
expect_prompt "ready>"

# Ctrl-Z stops the command that runs, and us with it; in the foreground again it reads on.
fresh
typed 'ocai cmd 查看磁盘使用情况'
keys Enter
expect "❯ [r] 执行"
keys e
expect '$ df '
keys C-u
typed 'echo "ready $((1 + 1))"; read -r line; echo "got $line"'
keys Enter
expect '    echo "ready'
expect "[r] 执行"
keys r
expect "ready 2"
keys C-z
expect_prompt "ready>"
typed fg
keys Enter
expect "ocai cmd"
typed "a line"
keys Enter
expect "got a line"
expect_prompt "ready>"

# A pager has the keys.
for pager in less more; do
	command -v $pager >/dev/null || continue
	fresh
	typed 'ocai cmd 查看磁盘使用情况'
	keys Enter
	expect "❯ [r] 执行"
	keys e
	expect '$ df '
	keys C-u
	typed "seq 90 | $pager"
	keys Enter
	expect "    seq 90 | $pager"
	expect "[r] 执行"
	keys r
	expect "20"
	keys Space
	expect "40"
	keys q
	expect_prompt "ready>"
done

# A window that becomes narrow while a menu is open.
fresh
typed 'ocai cmd 查看磁盘使用情况'
keys Enter
expect "❯ [r] 执行"
t resize-window -x 40 -y 20
keys Down Down
expect "❯ [x] 解释"
keys q
expect_prompt "ready>"
t resize-window -x 80 -y 30
# The terminal is as it was: the shell edits and echoes.
fresh
typed 'echo "still $((40 + 2))"'
keys Enter
expect "still 42"

if [[ -x $bin/ocai-engine && -n $(compgen -G 'engine/models/mini/*.gguf') ]]; then
	fresh
	typed 'ocai chat'
	keys Enter
	expect "/help "
	expect_prompt ">"
	# A paste of several lines is one question, and shown as such.
	printf 'first line\n/help\n第三行' | t load-buffer -
	t paste-buffer -p
	expect "第三行"
	t capture-pane -p | grep -q "/attach" && fail "a pasted line was taken for a command"
	keys Enter
	expect "ocai: 内置模型 ocai-mini 只会给出命令" # and does not talk; the conversation goes on all the same
	expect_prompt ">"
	keys C-c
	expect "^C"
	expect_prompt ">"
	# To the shell and back.
	keys C-z
	expect_prompt "ready>"
	typed fg
	keys Enter
	expect_prompt ">"
	keys C-d
	expect_prompt "ready>"
else
	echo "no engine or no embedded model: no conversation was tried"
fi
echo "ocai in tmux: passed"
