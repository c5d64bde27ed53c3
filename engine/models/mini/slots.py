"""Values for the slots of the task catalogue (agent/knowledge).

A small model learns to copy a slot from the question only when it cannot guess the value, so every type mixes familiar
values with made-up ones: the familiar ones make sentences natural, the made-up ones force copying.
"""

FAMILIAR = {
    "pkg": """nginx httpd vim git wget curl htop tmux gcc make cmake docker podman redis mariadb-server mysql-server postgresql-server
        php python3 python3-pip java-11-openjdk golang nodejs npm rsync tcpdump strace lsof net-tools bind-utils telnet nmap-ncat
        iotop iftop sysstat chrony zsh screen tree unzip zip bzip2 p7zip jq haproxy keepalived squid samba nfs-utils vsftpd
        openssl openssh-server firewalld policycoreutils audit bash-completion yum-utils dnf-utils createrepo_c rpm-build
        kernel-devel kernel-headers ffmpeg ImageMagick ansible zabbix-agent prometheus grafana memcached rabbitmq-server etcd
        containerd buildah skopeo kubelet kubeadm kubectl cockpit dnsmasq bind postfix dovecot perl ruby rust cargo clang llvm gdb
        valgrind perf bpftool ethtool ipset conntrack-tools wireguard-tools openvpn sqlite elfutils libaio numactl tuned irqbalance
        lvm2 xfsprogs parted smartmontools nvme-cli mdadm fio iperf3 stress-ng traceroute mtr whois lrzsz dos2unix expect""",
    "unit": """nginx httpd sshd docker podman redis mysqld mariadb postgresql firewalld chronyd crond rsyslog NetworkManager kubelet
        containerd haproxy keepalived squid smb nfs-server vsftpd postfix named dnsmasq php-fpm tomcat zabbix-agent prometheus
        grafana-server memcached rabbitmq-server etcd auditd tuned libvirtd cockpit.socket supervisord jenkins gitlab-runner
        elasticsearch kibana logstash filebeat kafka zookeeper mongod influxdb telegraf node_exporter rpcbind autofs sssd polkit
        dbus systemd-resolved systemd-journald iptables nftables openvpn wg-quick@wg0 minio nacos consul vault harbor ollama vllm""",
    "proc": """java python python3 node nginx mysqld redis-server httpd php-fpm sshd dockerd containerd chrome firefox gunicorn uwsgi
        celery postgres mongod kubelet etcd rsync tar gcc make vim top bash crond ffmpeg elasticsearch logstash prometheus vllm""",
    "user": """root admin deploy www nginx tom alice bob jenkins test dev ops zhangsan lisi wangwu jack mary john guest mysql postgres
        oracle hadoop git ftpuser backup appuser webuser centos opc student xiaoming""",
    "group": "wheel docker www developers ops dev admins nginx staff users hadoop git ftp libvirt kvm video audio webteam dba",
    "host": "web01 db-server node1 master worker-2 server1 k8s-master k8s-node1 gateway proxy01 build-host test-server oc-web-03",
    "module": """br_netfilter overlay ip_vs nf_conntrack vfio_pci nvidia nouveau kvm kvm_intel bonding 8021q dm_multipath xfs ext4 nfs
        cifs fuse tun veth ip_tables nbd loop usb_storage e1000e ixgbe mlx5_core virtio_net vhost_net sctp tcp_bbr zram i2c_dev""",
    "sysctl": """vm.swappiness net.ipv4.ip_forward net.core.somaxconn fs.file-max vm.overcommit_memory net.ipv4.tcp_tw_reuse
        kernel.pid_max vm.max_map_count net.ipv4.tcp_syncookies fs.inotify.max_user_watches net.ipv4.tcp_max_syn_backlog
        vm.dirty_ratio kernel.shmmax net.core.rmem_max net.core.wmem_max net.ipv4.tcp_fin_timeout kernel.sysrq vm.nr_hugepages
        net.ipv4.tcp_keepalive_time net.ipv4.ip_local_port_range net.bridge.bridge-nf-call-iptables kernel.panic""",
    "cmdname": """ifconfig netstat semanage nslookup dig killall lsof vim wget unzip tree htop iostat sar tcpdump strace nmap telnet ftp
        rz sz dos2unix screen tmux git make gcc python3 pip java node docker jq pstree fuser iotop ethtool traceroute mtr nc
        ausearch getfacl setfacl crontab at lvextend mkfs.xfs mount.nfs showmount smartctl lspci lsusb dmidecode chronyc
        firewall-cmd nmcli ip ss find grep awk sed tar rsync scp ssh-copy-id envsubst gdb perf bpftrace""",
    "repo": "baseos appstream epel extras updates powertools crb docker-ce mysql-community nginx-stable epel-testing plus ha nvidia",
    "pymod": "requests numpy pandas flask django torch tensorflow pyyaml psutil paramiko ansible scipy matplotlib vllm transformers",
    "container": "web db redis mysql nginx api app mynginx test busybox1 my-app frontend backend gitlab jenkins prometheus minio postgres",
    "image": """nginx redis mysql:8.0 nginx:latest redis:7 ubuntu:22.04 centos:7 busybox alpine python:3.11 postgres:16
        opencloudos/opencloudos9 registry:2 golang:1.22 node:20 grafana/grafana prom/prometheus myapp:v1 web:1.0 app:latest""",
    "fwsvc": "http https ssh ftp dns nfs samba mysql postgresql smtp ntp vnc-server cockpit mountd rpc-bind tftp ldap snmp",
    "iface": "eth0 eth1 ens33 ens192 enp0s3 enp1s0 eno1 bond0 br0 ens160 eth2 enp3s0f0 team0 wlan0 docker0 virbr0",
    "tz": """Asia/Shanghai Asia/Tokyo UTC America/New_York Europe/London Europe/Berlin Asia/Singapore Asia/Hong_Kong Asia/Kolkata
        America/Los_Angeles Europe/Paris Australia/Sydney Asia/Seoul Asia/Dubai""",
    "cmd0": "uptime 'df -h' date hostname ls 'free -m' whoami 'cat /etc/hosts' ps pwd id w",
    "rr": "MX NS TXT AAAA CNAME A SOA SRV",
    "sebool": "httpd_can_network_connect httpd_can_network_connect_db samba_enable_home_dirs ftpd_full_access nis_enabled container_manage_cgroup",
    "alt": "java python python3 mta iptables libwbclient editor",
    "var": "PATH JAVA_HOME HOME LANG http_proxy https_proxy GOPATH LD_LIBRARY_PATH PS1 EDITOR TERM SHELL CUDA_HOME PYTHONPATH",
    "sep": ": , ; '|' = '\\t'",
    "mode": "755 644 600 700 777 750 640 400 444 775 664 711",
    "db": "wordpress test app shop blog zabbix mydb users orders nextcloud",
    "ns": "kube-system default monitoring prod dev ingress-nginx test logging",
    "fname0": """nginx.conf my.cnf php.ini httpd.conf redis.conf sshd_config hosts passwd resolv.conf docker-compose.yml settings.py
        application.yml server.xml catalina.out log4j.properties id_rsa authorized_keys known_hosts fstab libssl.so libc.so.6""",
    "dir0": """/etc /var /var/log /home /opt /tmp /usr /data /srv /root /usr/local /var/lib /var/www /opt/app /data/backup /home/admin /mnt
        /var/lib/docker /usr/share /etc/nginx /var/spool /boot /mnt/data /data/logs /srv/www /backup /var/cache /usr/lib /proc
        /usr/local/bin /var/log/nginx /data/mysql /opt/software /etc/yum.repos.d /etc/sysconfig /var/tmp /run""",
    "file0": """app.log access.log error.log test.txt a.txt b.txt data.csv config.yml nginx.conf notes.md backup.sql file.txt output.log 1.txt
        list.txt hosts users.txt report.pdf main.py index.html config.ini settings.json result.txt catalina.out README.md a.conf
        /etc/hosts /etc/passwd /etc/fstab /var/log/messages /etc/ssh/sshd_config /etc/nginx/nginx.conf /var/log/secure /etc/my.cnf
        /etc/resolv.conf /var/log/cron /etc/profile /root/.bashrc ~/.bashrc /var/log/dnf.log /etc/selinux/config""",
    "path0": """/usr/bin/python3 /bin/bash /usr/sbin/nginx /etc/my.cnf /usr/lib64/libssl.so /etc/ssh/sshd_config /usr/bin/vim /usr/sbin/ip
        /etc/yum.conf /usr/bin/curl /etc/nginx/nginx.conf /lib64/libc.so.6 /usr/bin/docker /etc/passwd /etc/sysctl.conf /usr/bin/gcc
        /etc/profile /usr/libexec/openssh/sftp-server /etc/chrony.conf /usr/bin/ls /etc/crontab /var/www/html /opt/app /data""",
    "script0": "backup.sh start.sh deploy.sh run.sh test.sh install.sh /root/backup.sh /opt/scripts/clean.sh ./run.sh /usr/local/bin/sync.sh check.py",
    "domain0": """www.baidu.com www.qq.com github.com example.com mirrors.tencent.com www.google.com mail.example.com api.example.com
        registry.example.com opencloudos.org cloud.tencent.com db.internal.example.com www.163.com docker.io gitee.com""",
    "word0": """error ERROR timeout failed warning 404 500 password root TODO listen main localhost refused denied Exception OOM fatal
        success hello debug user id GET POST null import include enabled port server host 127.0.0.1""",
    "karg": "selinux=0 quiet net.ifnames=0 intel_iommu=on crashkernel=256M mitigations=off console=ttyS0 iommu=pt nomodeset hugepages=1024",
}
FAMILIAR = {k: v.split() for k, v in FAMILIAR.items()}
FAMILIAR["cmd0"] = ["uptime", "df -h", "date", "hostname", "ls", "free -m", "whoami", "cat /etc/hosts", "ps aux", "pwd", "id", "w", "ip a"]

SYLLABLES = """ba be bi bo bu ca ce ci co da de di do fa fe fi fo ga ge go ha he hi ho ja jo ka ke ki ko la le li lo lu ma me mi mo mu na
    ne ni no pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo wa we xa ya yo za zo zu lib net sys log key map web data
    box run fs db io min max pro core tech hub flow ware link port cloud stack test dev prod app api""".split()
WORDS = """alpha apple app archive array audit auth backup bank batch beta billing blog blue board book branch bridge build cache camera
    cart case center chain chart chat check city client clock cloud code coin core cost crm current daily data delta demo desk draft drive
    edge email engine entry event export factory farm feed field file finance fire flag forest forum frame front game gamma gate graph
    green grid group guide home hotel house image import index info input invoice issue item job key lab large left legacy library light
    line link list live local lock login main manual map market master media member menu metric mobile model module monitor name network
    news node north note notice object office old online order output owner page panel park part pay photo pipe plan player point pool
    portal post power price print private product project proxy public queue rack radio red release remote report request result right
    river road rock root route rule sale sample scan school score script search second secret section server service session shop site
    small source south space spring staff stage star start state static stats status stock storage store stream student summer sun
    support system table task team temp test ticket time token tool topic tower track trade train travel tree trial tunnel update upload
    user value vendor video view visit voice wallet water wave web week west white wiki wind winter work world yellow zone""".split()
EXTS = "txt log conf cfg csv json xml yml yaml md sh py c h html js sql ini bak tmp out pdf jpg png gz rpm service".split()


def word(r):
    """A made-up name: a real word, a few syllables, or either with a number or a second part."""
    k = r.random()
    w = r.choice(WORDS) if k < 0.5 else "".join(r.choice(SYLLABLES) for _ in range(r.randint(2, 4)))
    k = r.random()
    if k < 0.15:
        w += str(r.randint(1, 99))
    elif k < 0.30:
        w += r.choice("-_") + r.choice(WORDS)
    elif k < 0.36:
        w += "-" + str(r.randint(1, 20))
    return w


def pick(name, made_up=None, share=0.55):
    """Familiar with the given share, else made up."""
    def value(r):
        if r.random() < share or not made_up:
            return r.choice(FAMILIAR[name])
        return (made_up or word)(r)
    return value


def ip(r):
    k = r.random()
    if k < 0.35:
        return f"192.168.{r.randint(0, 255)}.{r.randint(1, 254)}"
    if k < 0.7:
        return f"10.{r.randint(0, 255)}.{r.randint(0, 255)}.{r.randint(1, 254)}"
    if k < 0.8:
        return r.choice(["8.8.8.8", "1.1.1.1", "114.114.114.114", "223.5.5.5", "127.0.0.1", "119.29.29.29"])
    return f"{r.randint(1, 223)}.{r.randint(0, 255)}.{r.randint(0, 255)}.{r.randint(1, 254)}"


def port(r):
    if r.random() < 0.5:
        return r.choice("80 443 8080 3306 6379 22 5432 9090 3000 8000 8443 9200 27017 2379 6443 5000 21 25 53 8888 9000 11434 9092 111".split())
    return str(r.randint(1, 65535) if r.random() < 0.5 else r.randint(1000, 9999))


def directory(r):
    if r.random() < 0.45:
        return r.choice(FAMILIAR["dir0"])
    base = r.choice(["/data", "/opt", "/srv", "/home", "/var/log", "/var/lib", "/mnt", "/etc", "/usr/local", "/tmp", "/root", "/backup", ""])
    path = base + "/" + word(r)
    if r.random() < 0.3:
        path += "/" + word(r)
    return path


def filename(r):
    return word(r) + "." + r.choice(EXTS)


def file(r):
    k = r.random()
    if k < 0.35:
        return r.choice(FAMILIAR["file0"])
    if k < 0.75:
        return filename(r)
    return directory(r) + "/" + filename(r)


def path(r):
    k = r.random()
    if k < 0.3:
        return r.choice(FAMILIAR["path0"])
    if k < 0.6:
        return directory(r)
    return directory(r) + "/" + (filename(r) if r.random() < 0.7 else word(r))


def domain(r):
    if r.random() < 0.4:
        return r.choice(FAMILIAR["domain0"])
    return ".".join(([r.choice(["www", "api", "mail", "db", "git", word(r)])] if r.random() < 0.6 else []) + [word(r), r.choice(["com", "cn", "org", "net", "io", "local"])])


def url(r):
    host = domain(r) if r.random() < 0.8 else ip(r)
    tail = "" if r.random() < 0.3 else "/" + word(r)
    if r.random() < 0.4:
        tail += "/" + (filename(r) if r.random() < 0.6 else word(r))
    return r.choice(["http", "https", "https"]) + "://" + host + (":" + port(r) if r.random() < 0.15 else "") + tail


def dev(r):
    return r.choice(["/dev/sdb", "/dev/sdb1", "/dev/sdc", "/dev/sdc1", "/dev/vdb", "/dev/vdb1", "/dev/vdc", "/dev/nvme0n1", "/dev/nvme0n1p1",
                     "/dev/nvme1n1", "/dev/sda3", "/dev/sdd", "/dev/vda2", "/dev/xvdb", "/dev/md0", "/dev/sde1",
                     "/dev/sd" + r.choice("abcdefgh") + r.choice(["", "1", "2", "3"]), "/dev/vd" + r.choice("bcdef") + r.choice(["", "1", "2"])])


def size(r):
    return str(r.choice([1, 2, 4, 5, 8, 10, 16, 20, 30, 50, 64, 100, 128, 200, 256, 300, 500, 512, r.randint(1, 999)])) + r.choice("GGGMM")


def number(r):
    return str(r.choice([1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 100, 200, r.randint(1, 40), r.randint(2, 500)]))


def archive(*exts):
    return lambda r: (directory(r) + "/" if r.random() < 0.15 else "") + word(r) + ("-" + version(r) if r.random() < 0.2 else "") + "." + r.choice(exts)


def version(r):
    return ".".join(str(r.randint(0, 20)) for _ in range(r.randint(2, 3)))


def glob(r):
    k = r.random()
    if k < 0.75:
        return "*." + r.choice(EXTS)
    return word(r) + "*" if k < 0.9 else "*" + word(r) + "*"


def datetime(r):
    day = f"20{r.randint(23, 27)}-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}"
    return day if r.random() < 0.3 else day + f" {r.randint(0, 23):02d}:{r.choice(['00', '30', '15', '05', '59'])}" + r.choice(["", ":00"])


def text(r):
    k = r.random()
    return r.choice(FAMILIAR["word0"]) if k < 0.5 else word(r) if k < 0.85 else ip(r)


GENERATORS = {
    "pkg": pick("pkg", word, 0.7), "unit": pick("unit", word, 0.7), "proc": pick("proc", word, 0.6), "user": pick("user", word, 0.55),
    "group": pick("group", word, 0.5), "host": pick("host", word, 0.4), "module": pick("module", word, 0.7),
    "sysctl": pick("sysctl", lambda r: r.choice(["vm", "net.ipv4", "net.core", "kernel", "fs"]) + "." + word(r).replace("-", "_"), 0.8),
    "cmdname": pick("cmdname", word, 0.75), "repo": pick("repo", word, 0.6), "pymod": pick("pymod", word, 0.6),
    "container": pick("container", word, 0.45), "fwsvc": pick("fwsvc", word, 0.85), "tz": pick("tz"), "rr": pick("rr"),
    "image": pick("image", lambda r: word(r) + ("/" + word(r) if r.random() < 0.3 else "") + (":" + r.choice(["latest", "v1", version(r)]) if r.random() < 0.6 else ""), 0.5),
    "iface": pick("iface", lambda r: r.choice(["eth", "ens", "enp", "bond", "br"]) + str(r.randint(0, 250)) + r.choice(["", "", "s0", "f0"]), 0.7),
    "sebool": pick("sebool"), "alt": pick("alt"), "mode": pick("mode"), "sep": pick("sep"), "karg": pick("karg"),
    "var": pick("var", lambda r: word(r).upper().replace("-", "_"), 0.6), "val": word, "db": pick("db", word, 0.5), "ns": pick("ns", word, 0.5),
    "ip": ip, "port": port, "dir": directory, "file": file, "path": path, "domain": domain, "url": url, "dev": dev, "size": size,
    "disk": lambda r: r.choice(["/dev/sda", "/dev/sdb", "/dev/nvme0", "/dev/nvme0n1", "/dev/vda", "/dev/sdc"]),
    "n": number, "glob": glob, "word": text, "datetime": datetime, "ver": version, "pid": lambda r: str(r.randint(2, 99999)),
    "num": lambda r: str(r.choice([0, 1, 2, 10, 60, 100, 1024, 4096, 65535, 262144, r.randint(0, 99999)])),
    "big": lambda r: str(r.choice([65535, 65536, 102400, 1048576, 4096, 100000, 1024000])), "nice": lambda r: str(r.randint(-20, 19)),
    "cidr": lambda r: f"{r.choice([10, 172, 192])}.{r.randint(0, 255)}.{r.randint(0, 255)}.0/{r.choice([8, 16, 24, 24])}",
    "ipmask": lambda r: ip(r) + f"/{r.choice([24, 24, 24, 16, 22, 25, 32])}",
    "cve": lambda r: f"CVE-20{r.randint(15, 27)}-{r.randint(1000, 49999)}",
    "rpmfile": lambda r: (directory(r) + "/" if r.random() < 0.4 else r.choice(["", "", "./"])) + (r.choice(FAMILIAR["pkg"]) if r.random() < 0.4 else word(r)) + ("-" + version(r) + r.choice(["", "-1", "-1.oc9"]) if r.random() < 0.7 else "") + r.choice(["", ".x86_64", ".noarch"]) + ".rpm",
    "pcap": archive("pcap", "cap"), "iso": archive("iso"), "tgz": archive("tar.gz", "tar.gz", "tgz"), "zip": archive("zip"), "gz": archive("log.gz", "sql.gz", "gz"),
    "txz": archive("tar.xz"), "tbz": archive("tar.bz2"), "sevenz": archive("7z"), "tar": archive("tar"), "sql": archive("sql"), "jsonfile": archive("json"),
    "yaml": archive("yaml", "yml"), "crt": archive("crt", "pem", "cer"), "key": lambda r: r.choice(["~/.ssh/id_rsa", "/root/.ssh/id_ed25519", word(r) + ".pem", "~/.ssh/" + word(r)]),
    "script": pick("script0", lambda r: (directory(r) + "/" if r.random() < 0.5 else "") + word(r) + r.choice([".sh", ".sh", ".py"]), 0.4),
    "fname": pick("fname0", filename, 0.5), "newdir": word, "vg": lambda r: r.choice(["vg0", "vg01", "vgdata", "data", "rootvg", "centos", "ocs", "vg_" + word(r)]),
    "lv": lambda r: r.choice(["lv0", "data", "home", "lvdata", "mysql", "snap", "backup", word(r)]), "bond": lambda r: "bond" + str(r.randint(0, 4)),
    "lvpath": lambda r: f"/dev/{r.choice(['vg0', 'vgdata', 'centos', 'ocs', 'rootvg', 'vg01', 'mapper', 'vg_' + word(r)])}/{r.choice(['data', 'root', 'home', 'lv0', 'var', 'lvdata', word(r)])}",
    "date": lambda r: f"20{r.randint(26, 30)}-{r.randint(1, 12):02d}-{r.randint(1, 28):02d}", "rcmd": lambda r: r.choice(FAMILIAR["cmd0"]),
    "epoch": lambda r: str(r.randint(10**9, 2 * 10**9)), "vmlinuz": lambda r: f"/boot/vmlinuz-{r.randint(5, 6)}.{r.randint(0, 19)}.{r.randint(0, 200)}-{r.randint(1, 400)}.oc9.x86_64",
    "clock": lambda r: f"{r.randint(0, 23)}:{r.choice(['00', '30', '15', '45'])}", "hh": lambda r: str(r.randint(0, 23)), "mm": lambda r: str(r.randint(1, 59)),
    "json": lambda r: '{"' + word(r) + '": ' + r.choice(['"' + word(r) + '"', number(r)]) + "}",
    "pod": lambda r: word(r) + "-" + "".join(r.choice("abcdef0123456789") for _ in range(9)) + "-" + "".join(r.choice("bcdfghjklmnpqrstvwxz") for _ in range(5)),
    "b64": lambda r: "".join(r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789") for _ in range(r.choice([8, 11, 12, 15]))) + r.choice(["=", "==", ""]),
    "giturl": lambda r: r.choice(["https://github.com/", "https://gitee.com/", "git@github.com:"]) + word(r) + "/" + word(r) + ".git",
}
