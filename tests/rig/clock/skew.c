/*
 * A wall clock that is wrong: loaded into a program with LD_PRELOAD, it puts CLOCK_REALTIME off by
 * SMARTSCALE_RIG_SKEW seconds (negative: behind). The clocks that only ever go on are left as they are, as on a
 * machine whose date is wrong.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time)
{
	int answer = (int)syscall(SYS_clock_gettime, clock, time);
	const char *skew = getenv("SMARTSCALE_RIG_SKEW");

	if (answer == 0 && skew && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		time->tv_sec += atol(skew);
	return answer;
}
