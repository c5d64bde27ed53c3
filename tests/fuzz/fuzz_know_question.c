/* Bytes as a question and, after the first newline, a model's command, against a small catalogue with every class of
 * slot. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../agent/src/know/know.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char catalogue[] =
        "@看 = 查看|看看\n"
        "[a] read\n$ systemctl status {unit}\nzh <看>{unit}(服务|)的?状态\nen status of {unit}\n"
        "[b] change\n$ firewall-cmd --add-port={a:port}-{b:port}/tcp\nzh 开放{a:port}到{b:port}端口\nen open {a:port} "
        "to {b:port}\n"
        "[c] read\n$ grep \"{word}\" {file}\nen find {word} in {file}\nzh 在{file}里找{word}\n"
        "[d] destructive\n$ find {dir} -name '{glob}' -mtime +{n} -delete\nen delete {glob} in {dir} older than {n} "
        "days\n"
        "[e] change\n$ ssh {user}@{ip} {rcmd}\nen run {rcmd} on {ip} as {user}\n"
        "[f] change\n$ lvextend -r -L +{size} {lvpath}\nzh 给{lvpath}加{size}\n"
        "[g] read\n$ journalctl --since \"{a:datetime}\" --until \"{b:datetime}\"\nen logs from {a:datetime} to "
        "{b:datetime}\n"
        "[h] change\n$ sysctl -w {sysctl}={num}\nen set {sysctl} to {num}\n"
        "[i] change\n$ nmcli con mod {iface} ipv4.addresses {ipmask}\nen address {ipmask} on {iface}\n"
        "[j] read\n$ curl {url}\nen get {url}\n[k] read\n$ dig {domain} {rr}\nen {rr} record of {domain}\n"
        "[l] change\n$ chmod {mode} {path}\nen mode {mode} for {path}\n[m] change\n$ docker run {image}\nen run "
        "{image}\n"
        "[n] read\n$ echo ${var} {clock} {date} {cve} {tz} {ver}\nen x {var} {clock} {date} {cve} {tz} {ver}\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct ag_know *k;
	struct ag_know_match m[3];
	struct ag_know_answer a;
	char *text = malloc(size + 1), *command;
	struct err err;
	int n;

	if (!text || (!k && ag_know_parse("fuzz", catalogue, sizeof(catalogue) - 1, &k, &err) < 0))
		abort();
	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	command = strchr(text, '\n');
	if (command)
		*command++ = '\0';
	n = ag_know_match(k, text, m, 3);
	if (n > 0)
		ag_know_matches_done(m, (size_t)n);
	(void)ag_know_decide(k, text, command, &a);
	free(text);
	return 0;
}
