"""Makes the training text: documents for pretraining, conversations for fine-tuning.

A conversation is (system or None, user, answer). The seed tasks are expanded without end by the wording grammar and the
slot generators; the pairs and the corpus come from the data folder (layout: corpus/*.txt[.zst|.xz|.gz] with documents
parted by blank lines, nl2cmd/*.jsonl[...] with nl, command, name, source and tmpl).
"""
import glob
import gzip
import io
import json
import lzma
import os
import random
import re
import subprocess

import nearest
import slots
import wording

HERE = os.path.dirname(os.path.abspath(__file__))
CATALOGUE = os.path.join(HERE, "../../../agent/knowledge")
HINT_CHARS = 96  # of a template, as in ag_know_hints()
CMD = "cmd"  # the system message with which the assistant asks for one command

# ---- reading -------------------------------------------------------------------------------------------------------


def open_text(path):
    if path.endswith(".xz"):
        return io.TextIOWrapper(lzma.open(path), "utf-8")
    if path.endswith(".gz"):
        return io.TextIOWrapper(gzip.open(path), "utf-8")
    if path.endswith(".zst"):
        return io.StringIO(subprocess.run(["zstd", "-dcq", path], check=True, stdout=subprocess.PIPE).stdout.decode("utf-8"))
    return open(path, encoding="utf-8")


def load_corpus(data):
    """{file stem: [document, ...]}"""
    out = {}
    for path in sorted(glob.glob(os.path.join(data, "corpus", "*.txt*"))):
        docs = [d.strip() for d in open_text(path).read().split("\n\n")]
        out[os.path.basename(path).split(".txt")[0]] = [d for d in docs if len(d) > 40]
    if not out:
        raise SystemExit(f"{data}/corpus: no *.txt files")
    return out


def load_pairs(data):
    rows = []
    for path in sorted(glob.glob(os.path.join(data, "nl2cmd", "*.jsonl*"))):
        rows += [json.loads(line) for line in open_text(path)]
    if not rows:
        raise SystemExit(f"{data}/nl2cmd: no *.jsonl files")
    for r in rows:  # the assistant decides about privileges, not the model
        r["command"] = re.sub(r"^sudo (?!-)", "", r["command"].strip())
    return [r for r in rows if wanted_pair(r)]


FOREIGN = set("""apt apt-get apt-cache apt-mark apt-key apt-file aptitude dpkg dpkg-query dpkg-reconfigure pacman yay paru pamac makepkg zypper apk
    brew snap flatpak emerge eopkg xbps-install xbps-query nix nix-env nix-shell guix port pkgin pkg choco winget scoop add-apt-repository
    update-rc.d ufw tlmgr slackpkg equery opkg netplan launchctl""".split())


def wanted_pair(row):
    """Leaves out other systems' package managers, other operating systems' pages, and what is no single line."""
    words = re.split(r"[\s|;&()]+", row["command"])
    if any(w in FOREIGN for w in words) or "\n" in row["command"] or len(row["command"]) > 200 or not row["command"].strip():
        return False
    if re.search(r"/(osx|windows|android|freebsd|netbsd|openbsd|sunos|dos|cisco-ios)/", row["source"]):
        return False
    return 2 <= len(row["nl"]) <= 200 and not re.search(r"\b(Ubuntu|Debian|Arch|macOS|Windows|Homebrew)\b", row["nl"])


# ---- pairs: placeholders to values -----------------------------------------------------------------------------------

# (slot type, what the placeholder looks like, how the sentence names the thing)
NOUNS = [
    ("path", r"path/to/file_or_directory|路径/到/文件或目录", r"\b(?:an?|the|specific|specified|given) file or directory\b", r"指定的?文件或目录"),
    ("file", r"path/to/file(?:\.\w+)?|filename|路径/到/文件(?:\.\w+)?|文件名?|path/to/\w+\.\w+", r"\b(?:an?|the)(?: specific| specified| given)? file\b(?! system| name)", r"(?:指定的?|一个|给定的?|某个)文件(?!系统|名|夹|类型)"),
    ("dir", r"path/to/directory|path/to/folder|路径/到/目录|目录", r"\b(?:an?|the)(?: specific| specified| given)? (?:directory|folder)\b", r"(?:指定的?|一个|给定的?|某个)(?:目录|文件夹)"),
    ("pkg", r"package|package_name|包名?|软件包名?", r"\b(?:an?|the)(?: specific| specified| given| new)? package\b(?! manager)", r"(?:指定的?|一个|给定的?|某个)(?:新的?)?(?:软件包|包)"),
    ("user", r"username|user|用户名?", r"\b(?:an?|the)(?: specific| specified| given| new)? user\b(?!s| name)", r"(?:指定的?|一个|给定的?|某个)(?:新)?用户"),
    ("unit", r"service|unit|service_name|unit_name|服务名?|单元", r"\b(?:an?|the)(?: specific| specified| given)? (?:service|unit)\b", r"(?:指定的?|一个|给定的?|某个)(?:服务|单元)"),
    ("container", r"container|container_name|容器名?", r"\b(?:an?|the)(?: specific| specified| given)? container\b", r"(?:指定的?|一个|给定的?|某个)容器"),
    ("image", r"image|image_name|image:tag|镜像名?|镜像:标签", r"\b(?:an?|the)(?: specific| specified| given)? image\b", r"(?:指定的?|一个|给定的?|某个)镜像"),
    ("pid", r"pid|process_id|进程号|进程id", r"\b(?:an?|the)(?: specific| specified| given)? process\b", r"(?:指定的?|一个|给定的?|某个)进程"),
    ("port", r"port|port_number|端口号?", r"\b(?:an?|the)(?: specific| specified| given)? port\b", r"(?:指定的?|一个|给定的?|某个)端口"),
    ("url", r"https?://[\w.]+/?\S*|url", r"\b(?:an?|the)(?: specific| specified| given)? (?:URL|url|web page)\b", r"(?:指定的?|一个|给定的?|某个)(?:URL|网址|链接)"),
    ("iface", r"interface|eth0|接口", r"\b(?:an?|the)(?: specific| specified| given)? (?:network )?interface\b", r"(?:指定的?|一个|给定的?|某个)(?:网络)?接口"),
    ("host", r"host|hostname|主机名?", r"\b(?:an?|the)(?: specific| specified| given)? host\b", r"(?:指定的?|一个|给定的?|某个)主机"),
]
CJK_PLACE = [("路径/到/目录", "path/to/directory"), ("路径/到/文件", "path/to/file"), ("软件包", "package"), ("包名", "package"), ("包", "package"),
             ("用户名", "username"), ("用户", "username"), ("文件名", "filename"), ("文件", "filename"), ("目录", "directory"), ("端口", "port"),
             ("主机", "host"), ("服务", "service"), ("容器", "container"), ("镜像", "image"), ("接口", "interface"), ("命令", "command")]
CJK = r"[\u3400-\u9fff]"


def instantiate(row, rng):
    """The row's (question, command) with a placeholder turned into a value in both, or None where the template allows none."""
    tmpl = row.get("tmpl")
    if not tmpl:
        return None
    marks = [m for m in re.findall(r"\{\{(.*?)\}\}", tmpl) if not m.startswith("[")]
    for kind, mark, en, zh in NOUNS:
        hits = [m for m in marks if re.fullmatch(mark, m)]
        if len(hits) != 1:
            continue
        m = re.search(zh if row["lang"].startswith("zh") else en, row["nl"])
        if not m or hits[0] not in row["command"]:
            continue
        value = slots.GENERATORS[kind](rng)
        noun = re.sub(r"^(指定的?|一个|给定的?|某个)", "", m.group(0)) if row["lang"].startswith("zh") else re.sub(r"^(an?|the|specific|specified|given)\b ?", "", re.sub(r"\b(specific|specified|given) ", "", m.group(0)))
        said = (noun if rng.random() < 0.5 else "") + value if row["lang"].startswith("zh") else ("the " + noun + " " if rng.random() < 0.5 else "") + value
        return row["nl"][:m.start()] + said + row["nl"][m.end():], row["command"].replace(hits[0], value, 1)
    return None


# Programs whose pages say things like "show disk usage" and mean their own: such a question must name the program.
OWN_WORLD = set("docker podman git kubectl buildah skopeo nginx mysql redis-cli python3 pip3 java gcc screen tmux openssl perf tuned-adm lvcreate nft "
                "iptables tcpdump rsync curl wget jq dig nmcli virsh npm systemd-analyze parted dmidecode strace man watch".split())


def name_tool(text, row, core, rng):
    """Names the program in the question, always where the program is special, sometimes where it is common."""
    name = row["name"]
    if name in core and name not in OWN_WORLD and rng.random() < 0.75:
        return text
    words = row["command"].split()
    if name in ("docker", "podman", "git", "kubectl", "systemctl", "nmcli", "aws", "gh", "cargo", "npm") and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]) and rng.random() < 0.6:
        name += " " + words[1]
    if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text):
        return text
    if row["lang"].startswith("zh"):
        return rng.choice(["用 {n} {t}", "用{n}{t}", "{n}：{t}", "使用 {n} {t}", "{n} 怎么{t}"]).format(n=name, t=text)
    return rng.choice(["{t} with {n}", "{t} using {n}", "{n}: {t}", "use {n} to {t}"]).format(n=name, t=text)


def plain_command(command):
    """The command with Chinese placeholders in their usual English form, or None where some stay."""
    for zh, en in CJK_PLACE:
        command = re.sub(rf"(?<!{CJK}){zh}(?=\d*(\.\w+)?(\s|$|[\"':/]))", en, command)
    return None if re.search(CJK, command) else command


# ---- dressing a bare wording up as people type --------------------------------------------------------------------------

ZH_ASK = re.compile(r"吗|哪|谁|什么|多少|几|怎么|怎样|有没有|是否|如何|是不是|能不能|通不通|，|no space|报")
ZH_DO_PRE = ["", "", "", "", "", "", "怎么", "如何", "怎样", "请", "帮我", "请帮我", "帮忙", "我想", "我要", "我想要", "麻烦", "麻烦帮我", "请问怎么", "请问如何", "linux下如何", "linux怎么",
             "在linux上", "能不能帮我", "能否", "需要", "现在要", "服务器上怎么", "教我", "给我", "想", "怎么才能", "要怎么", "该如何", "命令行"]
ZH_DO_POST = ["", "", "", "", "", "", "", "？", "?", "。", "呢", "的命令", "用什么命令", "的命令是什么", "，用什么命令", "吧", "，谢谢", "应该怎么做", "怎么操作", "怎么弄", "怎么做", "该用什么命令", "！"]
ZH_ASK_PRE = ["", "", "", "", "", "请问", "看看", "帮我看看", "帮我查一下", "我想知道", "想知道", "查一下", "看下", "现在"]
ZH_ASK_POST = ["", "", "", "", "？", "?", "。", "啊", "呀", "，怎么看", "呢"]
EN_ASK = re.compile(r"^(is|are|was|were|which|what|who|how|does|do|did|can|will|when|where|why|has|have|i |my )\b|,")
EN_PRE = ["", "", "", "", "", "", "", "how do i ", "how do i ", "how to ", "how can i ", "please ", "can you ", "i want to ", "i need to ", "command to ", "help me ", "could you ", "i'd like to ",
          "what command do i use to ", "show me how to ", "how would i ", "linux command to ", "what is the command to ", "quickly ", "just ", "let's ", "now "]
EN_POST = ["", "", "", "", "", "", ".", "?", " please", " on linux", " from the command line", "!", " on this server", " thanks", " with one command"]
EN_ASK_PRE = ["", "", "", "", "", "", "tell me ", "hey, ", "can you tell me ", "i want to know ", "hi, "]
EN_ASK_POST = ["", "", "", "?", "?", "?", " please", " now", " right now?"]
MIXED = [("查看", "check"), ("重启", "restart"), ("安装", "install"), ("启动", "start"), ("停止", "stop"), ("删除", "delete"), ("列出", "list"),
         ("日志", "log"), ("服务", "service"), ("状态", "status"), ("防火墙", "firewall"), ("端口", "port"), ("容器", "container"), ("内存", "memory"),
         ("磁盘", "disk"), ("用户", "user"), ("文件", "file"), ("目录", "dir"), ("卸载", "remove"), ("更新", "update"), ("打开", "open"), ("创建", "create")]
SYNONYMS_ZH = [("查看", ["瞅瞅", "瞧一下", "检查", "看一看", "瞄一眼", "看", "查", "了解", "确认", "获取", "输出", "给我看"]), ("看看", ["瞅瞅", "瞧瞧", "查查", "看一眼"]), ("列出", ["罗列", "列一下", "把", "都有", "打印"]),
               ("显示", ["展示", "打印", "给出", "列一下"]), ("安装", ["装个", "装上", "装一个", "弄个", "部署"]), ("多少", ["几", "多大", "多少啊"]), ("机器", ["主机", "电脑", "服务器", "系统", "这台"]),
               ("占用", ["使用", "占了", "占着", "占", "霸占", "吃"]), ("进程", ["程序", "任务"]), ("文件夹", ["目录"]), ("目录", ["文件夹", "路径", "目录底下"]),
               ("删除", ["删掉", "干掉", "清掉", "移除", "删"]), ("启动", ["拉起", "开启", "起", "跑", "打开", "运行"]), ("停止", ["停", "关停", "停用", "终止", "停一下"]), ("重启", ["重新启动", "重起", "重新拉起", "restart"]),
               ("开机启动", ["开机自动起", "随系统启动", "开机就启动", "开机自动跑起来", "一开机就运行"]), ("开机自启", ["开机自动启动", "随机启动", "开机就自己起来"]), ("修改", ["改", "调整", "变更", "更改", "换"]),
               ("创建", ["新建", "建", "弄一个", "加", "新增"]), ("查找", ["找", "搜", "搜索", "找找", "翻一下"]), ("内存", ["RAM", "运存", "内存条"]), ("磁盘", ["硬盘", "盘", "存储", "disk"]), ("版本", ["版本号", "version"]),
               ("服务", ["service", "后台服务", ""]), ("系统", ["机器", "linux", "OS", "本机", "服务器"]), ("软件包", ["软件", "包", "package", "rpm包", "程序"]), ("当前", ["现在", "目前", "此刻", "这个"]), ("所有", ["全部", "全部的", "每个", "一切"]),
               ("最近", ["近期", "刚才", "这阵子", "最新"]), ("日志", ["log", "记录", "日志信息", "log日志"]), ("容器", ["container", "docker容器", "容器实例"]), ("用户", ["账号", "账户", "user", "帐号"]), ("端口", ["port", "端口号"]),
               ("更新", ["升级", "刷新", "update", "同步"]), ("升级", ["更新", "update", "upgrade"]), ("防火墙", ["firewalld", "firewall", "防火墙上"]), ("解压", ["解开", "解包", "展开", "unzip"]), ("打包", ["压缩", "归档"]),
               ("重新", ["再次", "再"]), ("使用情况", ["占用情况", "用量", "用了多少", "情况"]), ("设置", ["设", "配置", "配", "设定", "调"]), ("密码", ["口令", "password"]), ("地址", ["address", "地址信息"]), ("网卡", ["网口", "接口", "网络接口"]),
               ("失败", ["出错", "没成功", "异常"]), ("哪个", ["哪一个", "是哪个", "什么"]), ("哪些", ["什么", "哪几个", "都有哪些"]), ("替换", ["换", "改", "替换掉"]), ("复制", ["拷贝", "拷", "copy"]), ("最大", ["最大的", "最占地方", "最多"])]
SYNONYMS_EN = [("show", ["display", "print", "give me", "let me see", "tell me", "get", "output", "look at", "report"]), ("list", ["show", "enumerate", "print", "display", "give me", "see"]), ("remove", ["get rid of", "drop", "throw out", "take away", "wipe", "purge"]),
               ("delete", ["remove", "get rid of", "wipe", "drop", "erase", "clear"]), ("install", ["put", "set up", "deploy", "add", "get"]), ("uninstall", ["get rid of", "drop", "take out"]), ("find", ["search for", "locate", "look for", "hunt down", "spot"]),
               ("directory", ["folder", "dir"]), ("folder", ["directory", "dir"]), ("machine", ["box", "server", "host", "system", "computer"]), ("system", ["box", "server", "host", "machine"]), ("server", ["box", "machine", "host"]), ("start", ["launch", "bring up", "fire up", "run"]),
               ("stop", ["halt", "shut down"]), ("restart", ["bounce", "reboot", "cycle", "restart again"]), ("enable", ["activate"]), ("disable", ["deactivate"]), ("change", ["modify", "alter", "switch", "adjust"]),
               ("create", ["make", "add", "set up", "build"]), ("check", ["verify", "see", "look", "test", "inspect"]), ("biggest", ["largest", "fattest", "most space hungry"]), ("memory", ["ram", "mem"]), ("updates", ["upgrades", "newer packages"]), ("update", ["upgrade", "refresh", "bring up to date"]),
               ("packages", ["rpms", "software", "packages"]), ("package", ["rpm", "software"]), ("boot", ["startup", "system start", "power on"]), ("user", ["account", "user account"]), ("process", ["program", "task"]), ("running", ["active", "up", "alive", "live"]),
               ("service", ["daemon", "unit"]), ("logs", ["log", "journal", "log output"]), ("copy", ["transfer", "duplicate"]), ("free", ["available", "unused", "remaining"]), ("replace", ["swap", "change", "substitute"]), ("extract", ["unpack", "unzip", "open up"]),
               ("which", ["what"]), ("what", ["which"]), ("all", ["every", "each of the"]), ("the", ["this", "my", "", ""]), ("last", ["latest", "final", "previous", "most recent"]), ("using", ["eating", "occupying", "holding"]), ("set", ["change", "configure", "make"]),
               ("kill", ["end", "terminate", "stop"]), ("open", ["allow", "unblock"]), ("block", ["ban", "reject", "shut out"]), ("is", ["is", "was"]), ("compress", ["pack", "archive", "zip"]), ("download", ["fetch", "get", "grab"]), ("disk", ["drive", "hard disk", "storage"])]
SLOT_BASE = 0xE000  # slots travel through the dressing as private-use characters


def exchange(text, table, rng, pattern):
    """With some chance, one or two words of the text for others that people use for them."""
    for _ in range(rng.choice([0, 0, 1, 1, 2])):
        here = [(w, others) for w, others in table if w in text]
        if here:
            w, others = rng.choice(here)
            text = re.sub(pattern.format(w), rng.choice(others), text, count=1)
    return re.sub(" +", " ", text).strip()


def dress(text, lang, rng):
    """A bare wording with the habits of people: politeness, punctuation, typing errors, mixed languages."""
    if lang == "zh":
        ask = ZH_ASK.search(text)
        if rng.random() < 0.10:
            a, b = rng.choice(MIXED)
            text = text.replace(a, b, 1)
        text = exchange(text, SYNONYMS_ZH, rng, "{}")
        text = rng.choice(ZH_ASK_PRE if ask else ZH_DO_PRE) + text + rng.choice(ZH_ASK_POST if ask else ZH_DO_POST)
        if rng.random() < 0.06:
            i = rng.randrange(len(text))
            if "\u4e00" <= text[i] <= "\u9fff":
                text = text[:i] + text[i + 1:]
        return text
    ask = EN_ASK.search(text)
    text = exchange(text, SYNONYMS_EN, rng, r"\b{}\b")
    text = rng.choice(EN_ASK_PRE if ask else EN_PRE) + text + rng.choice(EN_ASK_POST if ask else EN_POST)
    if rng.random() < 0.08 and len(text) > 8:  # a typing error: two letters exchanged, one lost or one doubled
        i = rng.randrange(1, len(text) - 2)
        if text[i].isalpha() and text[i].isascii() and text[i + 1].isalpha() and text[i + 1].isascii():
            text = text[:i] + rng.choice([text[i + 1] + text[i], text[i], text[i] * 2 + text[i + 1]]) + text[i + 2:]
    if rng.random() < 0.45 and text[0].isascii():
        text = text[0].upper() + text[1:]
    return text


CONTEXT_ZH = ["服务器刚装好，", "机器刚重启完，", "上线前检查一下，", "业务反馈很慢，", "磁盘告警了，", "刚接手这台机器，", "领导要个数据，", "监控报警了，", "排查问题，", "同事说有异常，", "准备做迁移，", "新来的实习生问，", "线上环境，", "测试环境里，",
              "我是新手，", "急，", "在写巡检脚本，", "系统是 OpenCloudOS 9，", "昨天还好好的，", "刚改完配置，", "安全扫描要求，", "审计需要，", "做等保，", "客户现场，", "半夜被叫起来，", "容量规划用，", "交接文档要写，"]
AFTER_ZH = ["，急用", "，在线等", "，不要影响业务", "，我写到脚本里", "，给个命令就行", "，一条命令搞定", "，别的不要", "，之后我要汇报", "，谢谢大佬", "，以前没弄过", "，忘了怎么写了", "，简单点"]
CONTEXT_EN = ["we just rebooted this box, ", "the monitoring complains, ", "users say it is slow. ", "i took over this server today; ", "before we go live ", "for my inventory script: ", "new to linux here. ", "on opencloudos 9, ", "quick one: ", "hi, ",
              "our auditor asks: ", "disk alarm fired. ", "i am writing a report, ", "production machine, ", "since the update something is off. ", "my colleague left and ", "for a shell script, ", "hello all, ", "as root, ", "during maintenance ", "it worked yesterday; "]
AFTER_EN = [", it is urgent", ", without breaking anything", " for a script", ", just the command", " in one line", ", i forgot how", " so i can report it", ", nothing else", " asap", ", any idea", " before tonight"]
HOMOPHONES = [("的", "得"), ("在", "再"), ("查看", "察看"), ("账号", "帐号"), ("登录", "登陆"), ("重启", "从启"), ("端口", "断口"), ("启动", "起动"), ("部署", "布署"), ("磁盘", "瓷盘"), ("进程", "进成"), ("内核", "内合"), ("权限", "全限"), ("配置", "配制"),
              ("安装", "按装"), ("卸载", "卸栽"), ("列出", "例出"), ("显示", "现示"), ("容器", "溶器"), ("镜像", "景像"), ("版本", "板本"), ("目录", "目绿"), ("加载", "加在"), ("统计", "统记"), ("备份", "备分"), ("检查", "检察")]
DROP_ZH = ["的", "了", "一下", "下", "请", "帮我", "所有", "当前", "把", "里", "中", "个", "系统", "文件", "有"]
DROP_EN = set("the a an of in on to is are me my show this that for all with by from it please do does i can".split())


def roughen(text, lang, rng):
    """What hurry, habit and haste do to a sentence: words left out, keywords only, a story around it, more errors."""
    k = rng.random()
    if lang == "zh":
        if k < 0.16:
            for w in rng.sample(DROP_ZH, rng.randint(1, 5)):
                text = text.replace(w, "") if rng.random() < 0.7 else text
        elif k < 0.24 and len(text) > 8:  # keywords apart
            cut = rng.randrange(2, len(text) - 2)
            text = text[:cut] + " " + text[cut:]
        if rng.random() < 0.05:
            a, b = rng.choice(HOMOPHONES)
            text = text.replace(a, b, 1)
        if rng.random() < 0.12:  # several words in the other language
            for a, b in rng.sample(MIXED, 8):
                text = text.replace(a, " " + b + " ", 1)
        if rng.random() < 0.10:
            text = rng.choice(CONTEXT_ZH) + text
        if rng.random() < 0.05:
            text = text.rstrip("？?。") + rng.choice(AFTER_ZH)
        return re.sub(" +", " ", text).strip() or text
    words = text.split(" ")
    if k < 0.16:  # telegraph style
        words = [w for w in words if w.lower() not in DROP_EN] or words
    elif k < 0.24 and len(words) > 4:
        i = rng.randrange(len(words))
        if words[i].isascii() and words[i].isalpha():
            words.pop(i)
    elif k < 0.28 and len(words) > 3:
        i = rng.randrange(len(words) - 1)
        words[i], words[i + 1] = words[i + 1], words[i]
    text = " ".join(words)
    for _ in range(rng.choice([0] * 9 + [1, 1, 2])):
        i = rng.randrange(len(text))
        if text[i].isalpha() and text[i].isascii() and len(text) > 10:
            text = text[:i] + rng.choice(["", text[i] * 2, rng.choice("abcdefghijklmnopqrstuvwxyz")]) + text[i + 1:]
    if rng.random() < 0.10:
        text = rng.choice(CONTEXT_EN) + text
    if rng.random() < 0.05:
        text = text.rstrip("?.! ") + rng.choice(AFTER_EN)
    if rng.random() < 0.12:
        text = text.lower()
    return text


def space_cjk(text, rng):
    """Half of all writers put a space between Chinese and Latin letters or digits."""
    if rng.random() < 0.5:
        text = re.sub(rf"({CJK})([A-Za-z0-9/*~.\ue000-\uf8ff])", r"\1 \2", text)
        text = re.sub(rf"([A-Za-z0-9/*\ue000-\uf8ff])({CJK})", r"\1 \2", text)
    return text


def podman(task, text, command, rng):
    """Container tasks say docker; some of them are asked for podman instead."""
    if not task.id.startswith("ctr.") or "compose" in command or rng.random() > 0.15:
        return text, command
    if "docker" in text:
        text = text.replace("docker", "podman")
    else:
        text = ("用podman" + text) if re.search(CJK, text) else text + " with podman"
    return text, command.replace("docker ", "podman ")


def expand(task, lang, rng, bare=False):
    """One (question, command) of a seed task."""
    need = {(n, t or n) for n, t in wording.SLOT.findall(task.command) if (t or n) in slots.GENERATORS}
    types = dict(need)
    for _ in range(1000):
        parts = wording.sample(rng.choice(task.wordings[lang]), rng, [])
        parts = [(p[0], types.get(p[0], p[1])) if isinstance(p, tuple) else p for p in parts]  # {a} is short for {a:type}
        used = sorted({p for p in parts if isinstance(p, tuple)})
        if need <= set(used):
            break
    else:
        raise SystemExit(f"{task.id}: no wording names every slot")
    text = "".join(p if isinstance(p, str) else chr(SLOT_BASE + used.index(p)) for p in parts).strip()
    text, command = podman(task, text, task.command, rng)
    if lang == "en":  # grammar choices may leave double spaces
        text = re.sub(r" +", " ", text)
    if not bare:
        text = roughen(dress(text, lang, rng), lang, rng)
    if lang == "zh":  # a slot beside Latin letters or another slot needs a space to be readable
        text = re.sub(r"([A-Za-z0-9.\ue000-\uf8ff])(?=[\ue000-\uf8ff])", r"\1 ", text)
        text = re.sub(r"([\ue000-\uf8ff])(?=[A-Za-z0-9])", r"\1 ", text)
    text = space_cjk(text, rng) if lang == "zh" else text
    values = {}
    for name, kind in used:
        v = slots.GENERATORS[kind](rng)
        while v in values.values():
            v = slots.GENERATORS[kind](rng)
        values[name] = v
    if all(("a", k) in used and ("b", k) in used for k in ["n"]):  # a range of lines goes upwards
        values["a"], values["b"] = sorted([values["a"], values["b"]], key=int)
    for i, (name, _) in enumerate(used):
        text = text.replace(chr(SLOT_BASE + i), values[name])
    return text, wording.SLOT.sub(lambda m: values.get(m.group(1), m.group(0)), command)


# ---- other conversations ---------------------------------------------------------------------------------------------------

EXPLAIN_ZH = ["{c} 是什么意思", "解释一下命令 {c}", "{c} 这个命令是做什么的", "命令 {c} 有什么作用？", "请解释：{c}", "`{c}` 是干什么用的", "说明一下 {c}"]
EXPLAIN_EN = ["what does {c} do", "explain {c}", "Explain the command: {c}", "what is the meaning of `{c}`?", "what does the command {c} do?", "describe {c}"]
ANSWER_ZH = ["这条命令用来{d}。", "{d}。", "`{c}` 的作用是：{d}。"]
ANSWER_EN = ["It is used to: {d}.", "{d}.", "`{c}`: {d}."]
HOW_ZH = ["可以使用下面的命令：\n\n```\n{c}\n```", "运行：\n\n```\n{c}\n```", "用这条命令：`{c}`"]
HOW_EN = ["You can use this command:\n\n```\n{c}\n```", "Run:\n\n```\n{c}\n```", "Use `{c}`."]
RISK_ZH = {"destructive": "\n\n注意：这条命令会删除或覆盖数据，执行前请确认。", "change": "", "read": ""}
RISK_EN = {"destructive": "\n\nCareful: this deletes or overwrites data; check before you run it.", "change": "", "read": ""}
SMALL_TALK = [
    (["你是谁", "你是谁？", "介绍一下你自己", "你叫什么名字", "你好，你是谁", "你是什么模型"], "我是 ocai-mini，一个随系统安装的小型离线助手，可以把你的话变成 Linux 命令，也能解释命令。复杂的问题请配置更大的模型。"),
    (["你好", "您好", "hi，你好", "在吗", "早上好", "嗨"], "你好！我可以帮你查找和解释 Linux 命令，例如“查看磁盘空间”或“重启 nginx”。"),
    (["你能做什么", "你会什么", "你有什么功能", "怎么使用你", "你能帮我做什么？"], "我可以根据你的描述给出一条 shell 命令，也可以解释命令的作用。我是很小的模型，回答可能有错，执行前请先看清楚。"),
    (["谢谢", "谢谢你", "多谢", "好的，谢谢", "感谢"], "不客气！还有什么需要帮忙的吗？"),
    (["再见", "拜拜", "bye"], "再见！"),
    (["who are you", "who are you?", "what are you", "introduce yourself", "what is your name", "What model are you?"], "I am ocai-mini, a small offline assistant that ships with the system. I turn what you say into a Linux command and explain commands. For harder questions, configure a larger model."),
    (["hello", "hi", "hey", "hi there", "good morning", "Hello!"], "Hello! I can find and explain Linux commands, for example \"show disk usage\" or \"restart nginx\"."),
    (["what can you do", "what can you do?", "help", "how do i use you", "what are you able to do"], "I can suggest one shell command for what you describe, and explain what a command does. I am a very small model and may be wrong: read a command before you run it."),
    (["thanks", "thank you", "thank you!", "thx", "cool, thanks"], "You are welcome!"),
]


def chat_from_command(text, command, lang, risk, rng):
    """A conversation without system message around a (question, command): how-to or explanation."""
    zh = lang.startswith("zh")
    if rng.random() < 0.5:
        return None, text, rng.choice(HOW_ZH if zh else HOW_EN).format(c=command) + (RISK_ZH if zh else RISK_EN)[risk]
    desc = text.rstrip("。.？?:：")
    desc = desc if zh else desc[0].upper() + desc[1:]
    question = rng.choice(EXPLAIN_ZH if zh else EXPLAIN_EN).format(c=command)
    return None, question, rng.choice(ANSWER_ZH if zh else ANSWER_EN).format(c=command, d=desc)


def chats_from_corpus(corpus):
    """Question and answer out of documents: the title asks, the beginning of the text answers."""
    out = []
    for stem, docs in corpus.items():
        for d in docs:
            lines = [l for l in d.split("\n") if l.strip()]
            title = lines[0].lstrip("# ").strip()
            if not 2 <= len(title) <= 60 or len(lines) < 2:
                continue
            body, size = [], 0
            for l in lines[1:]:
                if size + len(l) > 500 or (size > 120 and l.startswith("#")):
                    break
                body.append(l)
                size += len(l)
            if size < 30:
                continue
            if "ops-cases" in stem:
                ask = title
            elif stem.endswith(".zh"):
                ask = (["介绍一下{}", "什么是{}", "{}是什么", "说说{}"][len(out) % 4]).format(title)
            else:
                ask = (["Tell me about {}", "What is {}?", "Explain {}", "what is {}"][len(out) % 4]).format(title)
            out.append((None, ask, "\n".join(body)))
    return out


CORE = set()


def core_names(tasks):
    """First words of the catalogue's commands: pairs about these programs count more."""
    if not CORE:
        for t in tasks:
            CORE.update(re.findall(r"(?:^|[|;&] )([a-z][\w.-]*)", t.command))
        CORE.update("ls cp mv rm cat grep find sed awk sort uniq cut tr head tail wc tar gzip unzip zip ssh scp rsync curl wget ip ss ping dig df du mount ps top kill "
                    "systemctl journalctl useradd usermod passwd chmod chown crontab yum dnf rpm firewall-cmd nmcli docker podman git xargs tee date who last".split())
    return CORE


# ---- the whole -------------------------------------------------------------------------------------------------------------

_state = {}


def setup(data):
    """Loads everything once per process."""
    if not _state:
        _state["tasks"] = wording.load_tasks(CATALOGUE)
        _state["pairs"] = load_pairs(data)
        core = core_names(_state["tasks"])
        _state["core"] = [r for r in _state["pairs"] if r["name"] in core and "nl2bash" not in r["source"]]
        _state["other"] = [r for r in _state["pairs"] if r["name"] not in core or "nl2bash" in r["source"]]
        _state["chats"] = chats_from_corpus(load_corpus(data))
    return _state


def seed_chat(s, rng):
    task, lang = rng.choice(s["tasks"]), "zh" if rng.random() < 0.52 else "en"
    text, command = expand(task, lang, rng)
    return task, lang, text, command


HINT_SHARE = 0.55   # of the command questions come with the nearest tasks, as at run time
HINT_MISSED = 0.12  # of those lack the right one


def with_hints(text, own, rng):
    """The system message: the keyword, for a part of the questions followed by the nearest templates in any order."""
    if rng.random() >= HINT_SHARE:
        return CMD
    near = nearest.hints(text, nearest.N_HINTS + 1)
    missed = rng.random() < HINT_MISSED
    if own and missed:
        near = [h for h in near if h != own[:HINT_CHARS]]
    elif own and own[:HINT_CHARS] not in near[:nearest.N_HINTS] and rng.random() < 0.5:
        near = [own[:HINT_CHARS]] + near
    near = near[:nearest.N_HINTS]
    rng.shuffle(near)
    return "\n".join([CMD] + near)


def conversation(s, rng):
    """Draws one conversation of the fine-tuning mix."""
    k = rng.random()
    if k < 0.74:
        task, _, text, command = seed_chat(s, rng)
        return with_hints(text, task.command, rng), text, command
    if k < 0.90:
        while True:
            row = rng.choice(s["core"] if rng.random() < 0.65 else s["other"])
            made = instantiate(row, rng) if rng.random() < 0.8 else None
            if made:
                text, command = made
            else:
                text, command = row["nl"], plain_command(row["command"])
                if command is None or (row.get("tmpl") and "path/to" in command and rng.random() < 0.6):
                    continue
            text = name_tool(text.rstrip(":：。. ") or row["nl"], row, CORE, rng)
            if not row["lang"].startswith("zh"):
                text = text[0].lower() + text[1:] if rng.random() < 0.4 else text
            elif rng.random() < 0.25:
                text = rng.choice(["如何", "怎么", "请", "帮我"]) + text
            if rng.random() < 0.85:
                return with_hints(text, None, rng), text, command
            return chat_from_command(text, command, row["lang"], "read", rng)
    if k < 0.95:
        task, lang = rng.choice(s["tasks"]), rng.choice(["zh", "en"])
        text, command = expand(task, lang, rng, bare=True)
        return chat_from_command(text, command, lang, task.risk, rng)
    if k < 0.955:
        questions, answer = rng.choice(SMALL_TALK)
        return None, rng.choice(questions), answer
    return rng.choice(s["chats"])


def conversations(args):
    """Worker: (data, seed, count) -> list of conversations."""
    data, seed, count = args
    s, rng = setup(data), random.Random(seed)
    return [conversation(s, rng) for _ in range(count)]


def pretrain_documents(data, rng):
    """The corpus once, the pairs as plain lines, and seed tasks as plain lines, so that commands meet words early."""
    s = setup(data)
    docs = [d for ds in load_corpus(data).values() for d in ds]
    rows = [f"{r['nl']}\n{r['command']}" if rng.random() < 0.5 else f"# {r['nl']}\n$ {r['command']}" for r in s["pairs"]]
    rng.shuffle(rows)
    docs += ["\n\n".join(rows[i:i + 12]) for i in range(0, len(rows), 12)]
    for _ in range(1500):
        lines = []
        for _ in range(12):
            _, _, text, command = seed_chat(s, rng)
            lines.append(f"{text}\n{command}")
        docs.append("\n\n".join(lines))
    rng.shuffle(docs)
    return docs


def in_catalogue(questions):
    """{question: task id} of the questions that are a sentence of the catalogue as it stands, slots aside."""
    tasks = wording.load_tasks(CATALOGUE)
    rx = [(t.id, re.compile(wording.to_regex(w), re.I)) for t in tasks for ws in t.wordings.values() for w in ws]
    found = {}
    for q in questions:
        bare = q.strip().rstrip("？?。. ")
        if re.search(CJK, bare):
            bare = re.sub(rf"(?<={CJK}) | (?={CJK})", "", bare)
        for task_id, r in rx:
            if r.fullmatch(bare):
                found[q] = task_id
                break
    return found
