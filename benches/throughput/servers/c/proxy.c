/*
 * The reference among gateways: a careful C program for this one task.
 *
 * One thread, edge-triggered epoll, each socket registered once. Each accepted connection gets a connection to the backend, and
 * bytes go both ways as they are. One read buffer shared by all; one recv and one send per event.
 *
 * It handles short writes (it queues the rest, and does not read the sender until the queue is empty), a backend that is not
 * connected yet, and half-close (it passes the end on when all bytes before it have left).
 * No timeouts, no limits but --max-connections.
 *
 * usage: proxy-c --listen 127.0.0.1:0 --backend 127.0.0.1:7001 [--max-connections N]
 */
#include "common.h"

enum { BUFFER = 64 * 1024 };

/* One end of a pair, found by its file descriptor. No heap unless something is queued. */
struct end {
    uint8_t *queue; /* output the kernel did not take, malloc'd */
    uint32_t queue_at, queue_len;
    int other; /* the other end of the pair */
    bool open : 1, connected : 1, ended : 1; /* ended: the peer sent FIN */
};

static uint8_t buffer[BUFFER];
static struct end *ends;
static int end_limit, epoll_fd, listen_fd;
static struct sockaddr_in backend;

static void close_end(int fd) {
    free(ends[fd].queue);
    memset(&ends[fd], 0, sizeof ends[fd]);
    close(fd);
}

static void close_pair(int fd) {
    int other = ends[fd].other;
    close_end(fd);
    close_end(other);
}

/* Sends now what the kernel takes and queues the rest. False when the connection is broken. The queue is empty before. */
static bool put(int fd, const uint8_t *bytes, size_t len) {
    struct end *e = &ends[fd];
    ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
    if (n == (ssize_t)len) return true;
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR) return false;
        n = 0;
    }
    e->queue = must(malloc(len - n));
    memcpy(e->queue, bytes + n, len - n);
    e->queue_at = 0, e->queue_len = len - n;
    return true;
}

/* Writes the queue until it is empty or the kernel is full. False when the connection is broken. */
static bool flush(int fd) {
    struct end *e = &ends[fd];
    while (e->queue_at < e->queue_len) {
        ssize_t n = send(fd, e->queue + e->queue_at, e->queue_len - e->queue_at, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        e->queue_at += n;
    }
    free(e->queue);
    e->queue = NULL;
    return true;
}

/*
 * Reads until the socket is drained, or until the other end has something queued. A short read means drained, but not when the
 * end of the stream was announced: that happens once, so it is read up to.
 */
static void receive(int fd, bool to_the_end) {
    struct end *e = &ends[fd], *to = &ends[e->other];
    while (!to->queue && !e->ended) {
        ssize_t n = recv(fd, buffer, BUFFER, 0);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) close_pair(fd);
            return;
        }
        if (n == 0) {
            e->ended = true;
            break;
        }
        if (!put(e->other, buffer, n)) {
            close_pair(fd);
            return;
        }
        if (n < BUFFER && !to_the_end) return;
    }
    if (!e->ended || to->queue || !to->connected) return;
    if (to->ended && !e->queue) close_pair(fd);
    else shutdown(e->other, SHUT_WR); /* again after another event: this does no harm */
}

static void serve(int fd, uint32_t events) {
    struct end *e = &ends[fd];
    bool was_blocked = e->queue || !e->connected;
    bool to_the_end = events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP);
    e->connected |= (events & EPOLLOUT) != 0; /* after a failure, too: then recv tells it */
    if (e->queue && !flush(fd)) {
        close_pair(fd);
        return;
    }
    if (was_blocked && e->connected && !e->queue) receive(e->other, true);
    if (e->open && (to_the_end || (events & EPOLLIN))) receive(fd, to_the_end);
}

static void watch(int fd) {
    struct epoll_event e = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

/* Begins to connect to the backend. Returns the socket, or -1. */
static int dial(void) {
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (fd < end_limit && (!connect(fd, (struct sockaddr *)&backend, sizeof backend) || errno == EINPROGRESS)) return fd;
    close(fd);
    return -1;
}

static void accept_all(void) {
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), other;
        if (fd < 0) {
            if (errno == EAGAIN) return;
            if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
            die("accept");
        }
        if (fd >= end_limit || (other = dial()) < 0) {
            close(fd);
            continue;
        }
        ends[fd] = (struct end){.other = other, .open = true, .connected = true};
        ends[other] = (struct end){.other = fd, .open = true};
        watch(fd);
        watch(other);
    }
}

int main(int argc, char **argv) {
    const char *where = "127.0.0.1:0", *to = NULL;
    struct epoll_event events[EVENTS];
    int max_connections = 20000;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--listen") && i + 1 < argc) where = argv[++i];
        else if (!strcmp(argv[i], "--backend") && i + 1 < argc) to = argv[++i];
        else if (!strcmp(argv[i], "--max-connections") && i + 1 < argc) max_connections = atoi(argv[++i]);
        else {
            fprintf(stderr, "unknown or incomplete argument: %s\n", argv[i]);
            return 2;
        }
    }
    if (!to) {
        fprintf(stderr, "--backend ADDRESS:PORT is missing\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* end when the benchmark ends for any cause */
    backend = parse_address(to);
    end_limit = 2 * max_connections + SPARE_FDS;
    ends = must(calloc(end_limit, sizeof *ends));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) die("epoll_create1");
    listen_fd = listen_on(where);
    struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.fd = listen_fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &e)) die("epoll_ctl");
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listen_fd) accept_all();
            else if (ends[fd].open) serve(fd, events[i].events);
        }
    }
}
