/* Files that are never shown to a model nor indexed. The list errs on the side of refusing. */
#include <fnmatch.h>
#include <string.h>

#include "tools/tools.h"

bool ag_tools_is_secret_path(const char *path)
{
	static const char *const patterns[] = {
		/* password hashes and what guards them */
		"/etc/shadow*",
		"/etc/gshadow*",
		"/etc/security/opasswd*",
		"/etc/master.passwd",
		"/var/lib/sss/*",
		/* keys of this machine */
		"/etc/ssh/ssh_host_*_key",
		"/etc/pki/*/private/*",
		"/etc/ssl/private/*",
		"/etc/krb5.keytab",
		"*.keytab",
		"/etc/wireguard/*",
		"/etc/ipsec.secrets",
		"/etc/NetworkManager/system-connections/*",
		"/var/lib/systemd/credential.secret",
		"/etc/cockpit/ws-certs.d/*.key",
		/* keys and credentials of people */
		"*/.ssh/id_*",
		"*/.ssh/*_rsa",
		"*/.ssh/*_ed25519",
		"*/.gnupg/*",
		"*/.netrc",
		"*/.pgpass",
		"*/.my.cnf",
		"*/.git-credentials",
		"*/.aws/credentials",
		"*/.azure/*",
		"*/.config/gcloud/*",
		"*/.kube/config",
		"*/.docker/config.json",
		"*/containers/auth.json",
		"*/.vault-token",
		"*/.npmrc",
		"*/.pypirc",
		"*/.password-store/*",
		"*/.mozilla/*",
		"*/.config/google-chrome/*",
		"*/.local/share/keyrings/*",
		"*/.bash_history",
		"*/.zsh_history",
		"*/.mysql_history",
		"*/.psql_history",
		/* by their names */
		"*.key",
		"*.p12",
		"*.pfx",
		"*.jks",
		"*.kdbx",
		"*/id_rsa",
		"*/id_ecdsa",
		"*/id_ed25519",
		"*/id_dsa",
		"*/.env",
		"*/.env.*",
		"*/.htpasswd",
		"*/anaconda-ks.cfg",
		"*/original-ks.cfg",
		/* the memory and the environment of processes, kernel memory, devices */
		"/proc/*/environ",
		"/proc/*/mem",
		"/proc/*/maps",
		"/proc/*/pagemap",
		"/proc/*/auxv",
		"/proc/*/stack",
		"/proc/*/cmdline",
		"/proc/*/fd/*",
		"/proc/*/root/*",
		"/proc/*/cwd/*",
		"/proc/kcore",
		"/proc/kmsg",
		"/proc/keys",
		"/proc/key-users",
		"/dev/*",
	};
	size_t len = strlen(path);

	if (len > 4 && strcmp(path + len - 4, ".pub") == 0)
		return false;
	for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++) {
		if (fnmatch(patterns[i], path, 0) == 0)
			return true;
	}
	return false;
}

bool ag_tools_is_secret_text(const char *data, size_t len)
{
	static const char begin[] = "-----BEGIN ", key[] = "PRIVATE KEY";
	const char *p = data, *end = data + len;

	while (p < end && (p = memmem(p, (size_t)(end - p), begin, sizeof(begin) - 1))) {
		const char *s = p + sizeof(begin) - 1, *newline = memchr(s, '\n', (size_t)(end - s));
		size_t n = (size_t)((newline ? newline : end) - s);

		/* A document that shows the header in a sentence is no key: its line goes on behind the dashes. */
		if (memmem(s, n < 64 ? n : 64, key, sizeof(key) - 1) && (p == data || p[-1] == '\n' || p[-1] == ' ') &&
		    newline && newline + 1 < end && newline[1] != '\n')
			return true;
		p = s;
	}
	return false;
}
