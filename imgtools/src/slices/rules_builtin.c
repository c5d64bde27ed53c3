/* The rules that come with the program: what neither package headers nor the files themselves can tell. Names of Debian
 * packages (what the tests are made of) and of the RPM distributions stand side by side. */
#include "slices_internal.h"

const char img_builtin_rules[] =
        /* A script for reporting bugs is no reason to bring a second shell. */
        "[bash]\n"
        "move = /usr/bin/bashbug* extras\n"
        /* Libraries that verify certificates look for one bundle; without it nothing is trusted. */
        "[/usr/lib*/libcurl*.so.4*]\n"
        "want = /etc/ssl/certs/ca-certificates.crt\n"
        "want = /etc/pki/tls/certs/ca-bundle.crt\n"
        "[/usr/bin/openssl]\n"
        "want = /usr/lib/ssl/openssl.cnf\n"
        "want = /etc/pki/tls/openssl.cnf\n"
        /* iconv(3) opens converters by name; only its own program is sure to want them. */
        "[/usr/bin/iconv]\n"
        "want = libc6_gconv\n"
        "want = glibc-gconv-extra_gconv\n"
        /* Modules that compiled code imports, where no import statement shows it. */
        "[/usr/lib*/numpy/core/_multiarray_umath*.so]\n"
        "want = python:datetime\n"
        "[/usr/lib*/numpy/random/bit_generator*.so]\n"
        "want = python:secrets\n"
        /* Opened by a path that is put together when the module is imported. */
        "[/usr/lib*/torch/__init__.py]\n"
        "want = /usr/lib*/torch/lib/libtorch_global_deps.so\n"
        "want = /usr/lib*/libtorch_global_deps.so\n"
        "want = /usr/lib*/torch_shm_manager\n"
        "[/usr/lib*/numpy/random/_generator*.so]\n"
        "want = python:warnings\n";
