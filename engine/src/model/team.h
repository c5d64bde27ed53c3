/* Threads that do the same thing at once, one for each device of a group. */
#ifndef ENG_MODEL_TEAM_H
#define ENG_MODEL_TEAM_H

#include <stdint.h>

struct team;

/* n threads, the caller of runner_team_run() being the first. */
int runner_team_new(uint32_t n, struct team **ret_team);
void runner_team_free(struct team *team);
/* fn(arg, rank) for each rank, all at the same time; returns when all are done. One caller at a time. */
void runner_team_run(struct team *team, void (*fn)(void *arg, uint32_t rank), void *arg);

#endif
