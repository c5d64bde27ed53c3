/* See limit.h. The workload comes first: when it has to wait for the processor, the disk or memory, what we do for
 * others is cut down, within two seconds to a fiftieth, and comes back slowly. */
#include "peer/limit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/threadpool.h"

enum { LOOK_US = 500000 };
#define LEAST 0.02 /* of the rate, under pressure: askers must not take us for dead */
/* Per cent: of the time that somebody waits for a processor, beyond which they are scarce; of the processors that we
 * take then. */
#define CPU_WAITS 2.0
#define CPU_SHARE 1.5

int64_t peer_now_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

static uint64_t clock_us(clockid_t id)
{
	struct timespec ts;

	return clock_gettime(id, &ts) == 0 ? (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000 : 0;
}

uint64_t peer_thread_cpu_us(void)
{
	return clock_us(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t peer_process_cpu_us(void)
{
	return clock_us(CLOCK_PROCESS_CPUTIME_ID);
}

/* ---- Buckets -------------------------------------------------------------------------------------------------- */

void peer_bucket_init(struct peer_bucket *b, uint64_t rate)
{
	*b = (struct peer_bucket){ .rate = rate, .factor = 1, .level = (double)rate / 5, .at_us = peer_now_us() };
	(void)pthread_mutex_init(&b->lock, NULL);
}

void peer_bucket_done(struct peer_bucket *b)
{
	(void)pthread_mutex_destroy(&b->lock);
}

void peer_bucket_throttle(struct peer_bucket *b, double factor)
{
	pthread_mutex_lock(&b->lock);
	b->factor = factor;
	pthread_mutex_unlock(&b->lock);
}

/* With the lock held. Without a rate of its own a bucket that is throttled still paces: what 10 Gbit/s would bring is
 * taken for the whole. */
static double fill(struct peer_bucket *b)
{
	double rate = b->rate ? (double)b->rate : 1.25e9;
	int64_t now = peer_now_us();

	rate *= b->factor;
	b->level += rate * (double)(now - b->at_us) / 1e6;
	b->level = b->level > rate / 5 ? rate / 5 : b->level;
	b->at_us = now;
	return rate;
}

/* What is left to those above: a quarter of what the bucket holds, half of it. */
static double reserve(enum flip_priority priority, double rate)
{
	return priority == FLIP_BACKGROUND ? rate / 20 : priority == FLIP_PREHEAT ? rate / 10 : 0;
}

int64_t peer_bucket_take(struct peer_bucket *b, size_t n, enum flip_priority priority)
{
	double rate, missing;
	int64_t wait = 0;

	pthread_mutex_lock(&b->lock);
	rate = fill(b);
	b->level -= (double)n;
	missing = reserve(priority, rate) - b->level;
	/* Not more than five seconds of debt: after that even the urgent wait, whatever the rest does. */
	if (missing > 0 && (priority != FLIP_FOREGROUND || b->level < -5 * rate))
		wait = (int64_t)(missing / rate * 1e6) + 1;
	if ((!b->rate && b->factor >= 1))
		wait = 0;
	pthread_mutex_unlock(&b->lock);
	return wait;
}

bool peer_bucket_is_empty(struct peer_bucket *b, enum flip_priority priority)
{
	bool is_empty;
	double rate;

	pthread_mutex_lock(&b->lock);
	rate = fill(b);
	is_empty = b->rate && b->level < reserve(priority, rate);
	pthread_mutex_unlock(&b->lock);
	return is_empty;
}

/* ---- Pressure ------------------------------------------------------------------------------------------------- */

int peer_psi_parse(const char *text, size_t size, double *ret_avg10, uint64_t *ret_total_us)
{
	char line[160], *end;
	unsigned long long total;
	size_t n = 0;
	double avg10;

	while (n < size && n < sizeof(line) - 1 && text[n] && text[n] != '\n')
		n++;
	memcpy(line, text, n);
	line[n] = '\0';
	if (strncmp(line, "some avg10=", 11) != 0 || !strchr("0123456789", line[11]))
		return -EBADMSG;
	avg10 = strtod(line + 11, &end);
	if (*end != ' ' || !(avg10 >= 0 && avg10 <= 100))
		return -EBADMSG;
	end = strstr(end, " total=");
	if (!end || !strchr("0123456789", end[7]) || !end[7])
		return -EBADMSG;
	errno = 0;
	total = strtoull(end + 7, &end, 10);
	if (errno || *end)
		return -EBADMSG;
	*ret_avg10 = avg10;
	*ret_total_us = total;
	return 0;
}

/* Per cent of the time since the last look that somebody waited. */
static double read_one(const char *dir, const char *name, int64_t passed_us, uint64_t *total_us)
{
	CLEANUP(close_fdp) int fd = -1;
	uint64_t total = 0, before = *total_us;
	char path[512], text[256];
	double avg10 = 0, v;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		(void)snprintf(path, sizeof(path), "%s/%s.pressure", dir, name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (n <= 0 || peer_psi_parse(text, (size_t)n, &avg10, &total) < 0)
		return 0;
	*total_us = total;
	if (!before || total < before || passed_us <= 0)
		return avg10;
	v = (double)(total - before) * 100 / (double)passed_us;
	return v < 100 ? v : 100;
}

void peer_pressure_init(struct peer_pressure *p)
{
	*p = (struct peer_pressure){ .factor = 1 };
}

bool peer_pressure_look(struct peer_pressure *p, const char *dir, double max_percent, int64_t now_us, uint64_t own_us)
{
	int64_t passed = now_us - p->at_us;
	double worst, cut, may_rise = 0.05;

	if (max_percent >= 100 || passed < LOOK_US)
		return false;
	p->share = p->at_us && own_us > p->own_us
	                   ? (double)(own_us - p->own_us) * 100 / (double)passed / base_cpu_count()
	                   : 0;
	p->own_us = own_us;
	p->at_us = now_us;
	p->cpu = read_one(dir, "cpu", passed, &p->total_us[0]);
	p->io = read_one(dir, "io", passed, &p->total_us[1]);
	p->memory = read_one(dir, "memory", passed, &p->total_us[2]) * 4; /* waiting for memory hurts most */
	worst = p->io > p->memory ? p->io : p->memory;
	cut = worst > max_percent ? max_percent / worst : 1;
	if (p->cpu > CPU_WAITS) {
		cut = p->share * cut > CPU_SHARE ? CPU_SHARE / p->share : cut;
		may_rise = p->factor / 10; /* what we take has to be seen before more is taken */
	}
	if (cut < 1) {
		p->factor *= cut < 0.25 ? 0.25 : cut > 0.75 ? 0.75 : cut;
		p->factor = p->factor < LEAST ? LEAST : p->factor;
	} else {
		p->factor = p->factor + may_rise > 1 ? 1 : p->factor + may_rise;
	}
	return true;
}
