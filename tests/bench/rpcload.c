/* A client of a line protocol that costs next to nothing: CONNECTIONS connections, each with
 * DEPTH requests under way, asked from one epoll loop.
 *
 * usage: rpcload SOCKET CONNECTIONS DEPTH REQUESTS <LINES
 *
 * The lines of standard input are asked by turns, over all connections. Prints the seconds from
 * the first request to the last answer, then for each answer the microseconds since its request.
 * Answers of one connection are taken to come in the order of the requests, as many requests are
 * sent as were answered, in one call, and each answer's time is taken when it was read.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/epoll.h>

#include "load.h"

enum { MOST_UNDER_WAY = 256, MOST_READ = 1 << 18 };

struct line {
    char *text;
    size_t length;
};

struct connection {
    int fd;
    double sent[MOST_UNDER_WAY]; /* a ring */
    size_t oldest, under_way;
};

static struct line *lines;
static size_t line_count, next_line;

static void read_lines(void) {
    struct line one = {NULL, 0};
    size_t room = 0;
    ssize_t length;
    while ((length = getline(&one.text, &room, stdin)) > 0) {
        lines = realloc(lines, (line_count + 1) * sizeof *lines);
        must(lines != NULL, "realloc");
        one.length = (size_t)length;
        lines[line_count++] = one;
        one.text = NULL;
        room = 0;
    }
    must(line_count > 0, "no line to ask");
}

/* The next `count` lines, in one call; what the socket does not take at once is waited for. */
static void ask(struct connection *one, size_t count) {
    static char buffer[MOST_READ];
    size_t size = 0;
    double now = now_us();
    for (size_t i = 0; i < count; i++) {
        const struct line *line = &lines[next_line++ % line_count];
        must(size + line->length <= sizeof buffer, "requests too long");
        memcpy(buffer + size, line->text, line->length);
        size += line->length;
        one->sent[(one->oldest + one->under_way++) % MOST_UNDER_WAY] = now;
    }
    send_all(one->fd, buffer, size);
}

/* How many answers came; their microseconds are put behind `taken`. */
static size_t answers(struct connection *one, double *taken, size_t room) {
    static char buffer[MOST_READ];
    ssize_t length = recv(one->fd, buffer, sizeof buffer, 0);
    must(length > 0, "recv");
    double now = now_us();
    size_t count = 0;
    for (const char *at = buffer, *end = buffer + length; (at = memchr(at, '\n', (size_t)(end - at))); at++) {
        must(one->under_way > 0, "more answers than requests");
        if (count < room)
            taken[count] = now - one->sent[one->oldest];
        one->oldest = (one->oldest + 1) % MOST_UNDER_WAY;
        one->under_way--;
        count++;
    }
    return count;
}

int main(int argc, char **argv) {
    must(argc == 5, "usage: rpcload SOCKET CONNECTIONS DEPTH REQUESTS");
    size_t connections = strtoul(argv[2], NULL, 10), depth = strtoul(argv[3], NULL, 10);
    size_t requests = strtoul(argv[4], NULL, 10), asked = 0, answered = 0;
    must(connections > 0 && depth > 0 && depth <= MOST_UNDER_WAY && requests >= connections * depth, "counts");
    read_lines();
    struct connection *all = calloc(connections, sizeof *all);
    struct epoll_event *events = calloc(connections, sizeof *events);
    double *taken = calloc(requests, sizeof *taken);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    must(all != NULL && events != NULL && taken != NULL && epoll >= 0, "memory, or epoll");
    for (size_t i = 0; i < connections; i++) {
        all[i].fd = connected_to(argv[1]);
        struct epoll_event readable = {.events = EPOLLIN, .data.ptr = &all[i]};
        must(epoll_ctl(epoll, EPOLL_CTL_ADD, all[i].fd, &readable) == 0, "epoll_ctl");
    }
    double begin = now_us();
    for (size_t i = 0; i < connections; i++, asked += depth)
        ask(&all[i], depth);
    while (answered < requests) {
        int ready = epoll_wait(epoll, events, (int)connections, -1);
        must(ready > 0 || errno == EINTR, "epoll_wait");
        for (int i = 0; i < ready; i++) {
            struct connection *one = events[i].data.ptr;
            size_t count = answers(one, taken + answered, requests - answered);
            answered += count;
            size_t more = count < requests - asked ? count : requests - asked;
            if (more > 0)
                ask(one, more);
            asked += more;
        }
    }
    printf("%.6f\n", (now_us() - begin) / 1e6);
    for (size_t i = 0; i < requests; i++)
        printf("%.1f\n", taken[i]);
    return 0;
}
