/* A client that launches jobs and sees them end, and costs next to nothing: one connection, on
 * which UNDER_WAY jobs are under way, each asked for by job.run, then waited for by job.wait.
 *
 * usage: launchload SOCKET COUNT UNDER_WAY <PARAMS
 *
 * Standard input has the parameters of job.run, one line. Prints the seconds from the first request
 * to the last end, then for each job, as they end, the microseconds from its request until its end
 * was read. A job that does not end with exit code 0 is an error.
 */
#define _GNU_SOURCE
#include "load.h"

enum { MOST_UNDER_WAY = 256, MOST_READ = 1 << 20 };

static int server;
static char *params;
static double begun[MOST_UNDER_WAY]; /* by the request's id */

static char requests[MOST_READ];
static size_t requests_size;

static void ask(size_t id, const char *method, const char *what) {
    size_t room = sizeof requests - requests_size;
    int length = snprintf(requests + requests_size, room, "{\"jsonrpc\":\"2.0\",\"id\":%zu,\"method\":\"%s\",\"params\":%s}\n",
                          id, method, what);
    must(length > 0 && (size_t)length < room, "requests too long");
    requests_size += (size_t)length;
}

static void run(size_t id) {
    begun[id] = now_us();
    ask(id, "job.run", params);
}

static void wait_for(size_t id, const char *job) {
    char what[64];
    snprintf(what, sizeof what, "{\"ids\":[\"%.*s\"]}", (int)strcspn(job, "\""), job);
    ask(id, "job.wait", what);
}

/* What follows `key` in the line; NULL where it has none. */
static const char *after(const char *line, const char *key) {
    const char *found = strstr(line, key);
    return found == NULL ? NULL : found + strlen(key);
}

static size_t id_of(const char *line) {
    const char *number = after(line, "{\"id\":");
    size_t id = number == NULL ? MOST_UNDER_WAY : strtoul(number, NULL, 10);
    must(id < MOST_UNDER_WAY, line);
    return id;
}

/* Whether the line tells of that job's end; the job is waited for where it tells of its start. */
static int tells_end(const char *line, size_t id) {
    const char *job = after(line, "\"result\":{\"id\":\"");
    if (job != NULL) {
        wait_for(id, job);
        return 0;
    }
    must(strstr(line, "\"finished\":[{") != NULL && strstr(line, "\"exit_code\":0") != NULL, line);
    return 1;
}

/* Of the answers that are here, how many told of an end; a new job takes the place of each. */
static size_t answers(double *taken, size_t room, size_t *to_run) {
    static char buffer[MOST_READ];
    static size_t held;
    ssize_t length = recv(server, buffer + held, sizeof buffer - held, 0);
    must(length > 0, "recv");
    held += (size_t)length;
    size_t ended = 0;
    char *line = buffer;
    for (char *end; (end = memchr(line, '\n', held - (size_t)(line - buffer))) != NULL; line = end + 1) {
        *end = '\0';
        size_t id = id_of(line);
        if (!tells_end(line, id))
            continue;
        must(ended < room, "more ends than jobs");
        taken[ended++] = now_us() - begun[id];
        if (*to_run > 0) {
            run(id);
            --*to_run;
        }
    }
    held -= (size_t)(line - buffer);
    memmove(buffer, line, held);
    return ended;
}

static void send_requests(void) {
    send_all(server, requests, requests_size);
    requests_size = 0;
}

int main(int argc, char **argv) {
    must(argc == 4, "usage: launchload SOCKET COUNT UNDER_WAY");
    size_t count = strtoul(argv[2], NULL, 10), under_way = strtoul(argv[3], NULL, 10), room = 0;
    must(under_way > 0 && under_way <= MOST_UNDER_WAY && count >= under_way, "counts");
    ssize_t length = getline(&params, &room, stdin);
    must(length > 0, "no parameters");
    params[strcspn(params, "\n")] = '\0';
    double *taken = calloc(count, sizeof *taken);
    must(taken != NULL, "memory");
    server = connected_to(argv[1]);
    double begin = now_us();
    for (size_t id = 0; id < under_way; id++)
        run(id);
    send_requests();
    for (size_t ended = 0, to_run = count - under_way; ended < count;) {
        ended += answers(taken + ended, count - ended, &to_run);
        send_requests();
    }
    printf("%.6f\n", (now_us() - begin) / 1e6);
    for (size_t i = 0; i < count; i++)
        printf("%.1f\n", taken[i]);
    return 0;
}
