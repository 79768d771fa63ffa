/* LD_PRELOAD library that makes system calls behave in allowed but rare ways.
 *
 * Each variable is a percentage of calls, unless it says otherwise:
 *   FAULT_SHORT_WRITE  a send takes only a part
 *   FAULT_SHORT_READ   a receive gives only a part of what has arrived
 *   FAULT_EINTR        send, receive, accept and epoll_wait are interrupted
 *   FAULT_ONE_EVENT    1: epoll_wait reports one event at a time
 *   FAULT_BUFFER       bytes: both socket buffers of every listener; accepted sockets inherit them
 *   FAULT_LATE         a file: while it exists, epoll_wait is half a second late with the events it found
 *   FAULT_SEED         the seed of the random choices
 *   FAULT_REPORT       a file: at exit it gets the count of each fault
 *
 * A real short write or read means that the socket's buffer was full or empty, so that an edge-triggered
 * epoll announces the socket again when that changes. Here the rest is there at once, so it has to be
 * announced at once: EPOLL_CTL_MOD with the same events makes epoll check the socket again.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 65536

/* A connection that accept4 returned, and its registration. epoll is 0 while it is not registered. */
struct connection {
    int accepted;
    int epoll;
    struct epoll_event event;
};

static struct connection connections[DESCRIPTORS];
static int short_write, short_read, interrupt, one_event, buffer;
static const char *late;
static unsigned long shortened_writes, shortened_reads, interruptions, single_events, small_buffers, late_returns;
static unsigned long accepts;
static _Thread_local unsigned long long random_state;
static unsigned long long seed;

static int (*real_accept4)(int, struct sockaddr *, socklen_t *, int);
static int (*real_epoll_ctl)(int, int, int, struct epoll_event *);
static int (*real_epoll_wait)(int, struct epoll_event *, int, int);
static int (*real_listen)(int, int);
static ssize_t (*real_recv)(int, void *, size_t, int);
static ssize_t (*real_send)(int, const void *, size_t, int);
static ssize_t (*real_sendmsg)(int, const struct msghdr *, int);
static ssize_t (*real_writev)(int, const struct iovec *, int);

static int setting(const char *name)
{
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}

__attribute__((constructor)) static void start(void)
{
    real_accept4 = dlsym(RTLD_NEXT, "accept4");
    real_epoll_ctl = dlsym(RTLD_NEXT, "epoll_ctl");
    real_epoll_wait = dlsym(RTLD_NEXT, "epoll_wait");
    real_listen = dlsym(RTLD_NEXT, "listen");
    real_recv = dlsym(RTLD_NEXT, "recv");
    real_send = dlsym(RTLD_NEXT, "send");
    real_sendmsg = dlsym(RTLD_NEXT, "sendmsg");
    real_writev = dlsym(RTLD_NEXT, "writev");
    short_write = setting("FAULT_SHORT_WRITE");
    short_read = setting("FAULT_SHORT_READ");
    interrupt = setting("FAULT_EINTR");
    one_event = setting("FAULT_ONE_EVENT");
    buffer = setting("FAULT_BUFFER");
    late = getenv("FAULT_LATE");
    seed = (unsigned long long)setting("FAULT_SEED") * 2 + 1;
}

__attribute__((destructor)) static void report(void)
{
    const char *path = getenv("FAULT_REPORT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file)
        return;
    fprintf(file, "short_write=%lu short_read=%lu eintr=%lu one_event=%lu buffer=%lu late=%lu accepts=%lu\n",
            shortened_writes, shortened_reads, interruptions, single_events, small_buffers, late_returns, accepts);
    fclose(file);
}

static unsigned long long random_number(void) /* xorshift64* */
{
    if (!random_state)
        random_state = seed;
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (random_state * 2685821657736338717ULL) >> 16;
}

static int happens(int percent)
{
    return percent && random_number() % 100 < (unsigned long long)percent;
}

/* Only accepted connections get faults, because pipes and socket pairs follow other rules. */
static struct connection *connection(int fd)
{
    if (fd < 0 || fd >= DESCRIPTORS || !connections[fd].accepted)
        return NULL;
    return &connections[fd];
}

static int interrupted(void)
{
    if (!happens(interrupt))
        return 0;
    interruptions++;
    errno = EINTR;
    return 1;
}

static void announce_again(int fd)
{
    int saved = errno;
    if (connections[fd].epoll)
        real_epoll_ctl(connections[fd].epoll, EPOLL_CTL_MOD, fd, &connections[fd].event);
    errno = saved;
}

/* How many of the `available` bytes pass: usually all. */
static size_t part(size_t available, int percent, unsigned long *counter)
{
    if (available < 2 || !happens(percent))
        return available;
    ++*counter;
    return 1 + random_number() % (available - 1);
}

int listen(int fd, int backlog)
{
    if (buffer) {
        small_buffers += setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) == 0 &&
                         setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer) == 0;
    }
    return real_listen(fd, backlog);
}

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    if (interrupted())
        return -1;
    accepts++;
    int accepted = real_accept4(fd, address, length, flags);
    if (accepted >= 0 && accepted < DESCRIPTORS)
        connections[accepted] = (struct connection){.accepted = 1};
    return accepted;
}

int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    struct connection *peer = connection(fd);
    if (peer && operation == EPOLL_CTL_DEL)
        peer->epoll = 0;
    if (peer && operation != EPOLL_CTL_DEL) {
        peer->epoll = epoll;
        peer->event = *event;
    }
    return real_epoll_ctl(epoll, operation, fd, event);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    if (interrupted())
        return -1;
    int count = real_epoll_wait(epoll, events, one_event ? 1 : most, timeout);
    single_events += one_event && count > 0;
    if (late && count > 0 && access(late, F_OK) == 0) {
        late_returns++;
        usleep(500 * 1000);
    }
    return count;
}

ssize_t send(int fd, const void *data, size_t length, int flags)
{
    if (!connection(fd))
        return real_send(fd, data, length, flags);
    if (interrupted())
        return -1;
    size_t taken = part(length, short_write, &shortened_writes);
    ssize_t sent = real_send(fd, data, taken, flags);
    if (taken < length)
        announce_again(fd);
    return sent;
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (connection(fd) && count > 0 && happens(short_write))
        return send(fd, parts[0].iov_base, parts[0].iov_len, MSG_NOSIGNAL);
    return real_writev(fd, parts, count);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    if (connection(fd) && message->msg_iovlen > 0 && happens(short_write))
        return send(fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len, flags);
    return real_sendmsg(fd, message, flags);
}

ssize_t recv(int fd, void *data, size_t length, int flags)
{
    int arrived = 0;
    if (!connection(fd))
        return real_recv(fd, data, length, flags);
    if (interrupted())
        return -1;
    if (!short_read || (flags & MSG_PEEK) || ioctl(fd, FIONREAD, &arrived) != 0 || arrived < 2)
        return real_recv(fd, data, length, flags);
    size_t available = (size_t)arrived < length ? (size_t)arrived : length;
    size_t given = part(available, short_read, &shortened_reads);
    if (given == available)
        return real_recv(fd, data, length, flags);
    ssize_t received = real_recv(fd, data, given, flags);
    announce_again(fd);
    return received;
}
