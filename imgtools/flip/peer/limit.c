/* See limit.h. The workload comes first: when it has to wait for the processor, the disk or memory, what we do for
 * others is halved each second, down to a twentieth, and comes back slowly. */
#include "peer/limit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"

int64_t peer_now_us(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
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

int peer_psi_parse(const char *text, size_t size, double *ret_avg10)
{
	static const char word[] = "some avg10=";
	char number[16], *end;
	size_t n = 0;
	double v;

	if (size < sizeof(word) || memcmp(text, word, sizeof(word) - 1) != 0)
		return -EBADMSG;
	for (size_t i = sizeof(word) - 1; i < size && n < sizeof(number) - 1; i++) {
		if (!strchr("0123456789.", text[i]) || !text[i])
			break;
		number[n++] = text[i];
	}
	number[n] = '\0';
	v = strtod(number, &end);
	if (!n || *end || v < 0 || v > 100)
		return -EBADMSG;
	*ret_avg10 = v;
	return 0;
}

static double read_one(const char *dir, const char *name)
{
	CLEANUP(close_fdp) int fd = -1;
	char path[256], text[256];
	double v = 0;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (n > 0)
		(void)peer_psi_parse(text, (size_t)n, &v);
	return v;
}

void peer_pressure_init(struct peer_pressure *p)
{
	*p = (struct peer_pressure){ .factor = 1 };
}

bool peer_pressure_look(struct peer_pressure *p, const char *dir, double max_percent, int64_t now_us)
{
	double worst;

	if (max_percent >= 100 || now_us - p->at_us < 1000000)
		return false;
	p->at_us = now_us;
	p->cpu = read_one(dir, "cpu");
	p->io = read_one(dir, "io");
	p->memory = read_one(dir, "memory") * 4; /* waiting for memory hurts most */
	worst = p->cpu > p->io ? p->cpu : p->io;
	worst = worst > p->memory ? worst : p->memory;
	if (worst > max_percent)
		p->factor = p->factor / 2 < 0.05 ? 0.05 : p->factor / 2;
	else
		p->factor = p->factor + 0.1 > 1 ? 1 : p->factor + 0.1;
	return true;
}
