/*
 * The reference: a careful C program for this one task.
 *
 * One thread, edge-triggered epoll, each socket registered once. One read buffer shared by all peers, one recv and one send per
 * event, whole frames sent straight from the read buffer. A frame is a 2-byte big-endian length and its payload; the answer is
 * the same frame. With --broadcast every frame goes to every peer instead.
 *
 * It handles partial frames (it keeps the rest until more bytes arrive), short writes (it queues the rest, and does not read the
 * peer until the queue is empty) and half-close (it first answers what it has received).
 * No handler, no timeouts, no limits but --max-connections.
 *
 * usage: echo-c --listen 127.0.0.1:0 | --unix PATH [--max-connections N] [--broadcast]
 */
#include "common.h"
#include <sys/un.h>

enum { PREFIX = 2, BUFFER = 64 * 1024 + PREFIX };

/* One peer, found by its file descriptor. 40 bytes; no heap unless something is held or queued. */
struct peer {
    uint8_t *held;  /* a partial frame, malloc'd */
    uint8_t *queue; /* output the kernel did not take, malloc'd */
    uint32_t held_len;
    uint32_t queue_at, queue_len, queue_size;
    bool open : 1, ended : 1; /* ended: the peer sent FIN; close when the queue is empty */
};

static uint8_t buffer[BUFFER];
static struct peer *peers;
static int peer_limit, highest, epoll_fd, listen_fd;
static bool broadcast;
/*
 * A TCP socket announces room only after it was full, so it is watched for room from the start. A Unix socket announces it whenever
 * its peer has read, so it is watched once room was missing.
 */
static uint32_t interest = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;

static void close_peer(int fd) {
    struct peer *p = &peers[fd];
    free(p->held);
    free(p->queue);
    memset(p, 0, sizeof *p);
    close(fd);
}

static void enqueue(struct peer *p, const uint8_t *bytes, size_t len) {
    if (p->queue_len + len > p->queue_size) {
        size_t size = p->queue_size ? p->queue_size : 4096;
        while (size < p->queue_len + len) size *= 2;
        p->queue = must(realloc(p->queue, size));
        p->queue_size = size;
    }
    memcpy(p->queue + p->queue_len, bytes, len);
    p->queue_len += len;
}

/* Sends now what the kernel takes and queues the rest. False when the connection is broken. */
static bool put(int fd, const uint8_t *bytes, size_t len) {
    struct peer *p = &peers[fd];
    if (!p->queue_len) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n == (ssize_t)len) return true;
        if (n < 0 && errno != EAGAIN && errno != EINTR) return false;
        if (n > 0) bytes += n, len -= n;
    }
    if (!(interest & EPOLLOUT) && !p->queue_len) {
        struct epoll_event e = {.events = interest | EPOLLOUT, .data.fd = fd};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &e)) die("epoll_ctl");
    }
    enqueue(p, bytes, len);
    return true;
}

/* Writes the queue until it is empty or the kernel is full. False when the connection is broken. */
static bool flush(int fd) {
    struct peer *p = &peers[fd];
    while (p->queue_at < p->queue_len) {
        ssize_t n = send(fd, p->queue + p->queue_at, p->queue_len - p->queue_at, MSG_NOSIGNAL);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        p->queue_at += n;
    }
    free(p->queue);
    p->queue = NULL;
    p->queue_at = p->queue_len = p->queue_size = 0;
    return true;
}

static size_t whole_frames(const uint8_t *bytes, size_t len) {
    size_t at = 0;
    while (len - at >= PREFIX) {
        size_t frame = PREFIX + ((size_t)bytes[at] << 8 | bytes[at + 1]);
        if (len - at < frame) break;
        at += frame;
    }
    return at;
}

static void hold(struct peer *p, const uint8_t *bytes, size_t len) {
    if (!len) {
        if (p->held) free(p->held), p->held = NULL;
    } else {
        if (p->held_len != len) p->held = must(realloc(p->held, len));
        memcpy(p->held, bytes, len);
    }
    p->held_len = len;
}

static bool answer(int fd, const uint8_t *frames, size_t len) {
    if (!broadcast) return put(fd, frames, len);
    for (int other = 0; other <= highest; other++)
        if (peers[other].open) put(other, frames, len); /* a broken one is closed by its own event */
    return true;
}

/*
 * Reads until the socket is drained, or until a peer that does not read its answers has something queued. A short read means
 * drained, but not when the end of the stream was announced: that happens once, so it is read up to.
 */
static void receive(int fd, bool to_the_end) {
    struct peer *p = &peers[fd];
    while (!p->queue_len && !p->ended) {
        if (p->held_len) memcpy(buffer, p->held, p->held_len);
        size_t space = BUFFER - p->held_len;
        ssize_t n = recv(fd, buffer + p->held_len, space, 0);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) close_peer(fd);
            return;
        }
        if (n == 0) {
            p->ended = true;
            break;
        }
        size_t have = p->held_len + n, whole = whole_frames(buffer, have);
        hold(p, buffer + whole, have - whole);
        if (whole && !answer(fd, buffer, whole)) {
            close_peer(fd);
            return;
        }
        if ((size_t)n < space && !to_the_end) return;
    }
    if (p->ended && !p->queue_len) close_peer(fd);
}

static void serve(int fd, uint32_t events) {
    bool was_full = peers[fd].queue_len > 0;
    bool to_the_end = events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP);
    if (was_full && !flush(fd)) close_peer(fd);
    else if (was_full || to_the_end || (events & EPOLLIN)) receive(fd, to_the_end);
}

static void accept_all(void) {
    for (;;) {
        int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EAGAIN) return;
            if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO) continue;
            die("accept");
        }
        if (fd >= peer_limit) {
            close(fd);
            continue;
        }
        struct epoll_event e = {.events = interest, .data.fd = fd};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
        peers[fd].open = true;
        if (fd > highest) highest = fd;
    }
}

/* Listens at a path that is free, and prints it as the first line on stdout. Returns the socket. */
static int listen_at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (strlen(path) >= sizeof address.sun_path) {
        fprintf(stderr, "the path is too long: %s\n", path);
        exit(2);
    }
    strcpy(address.sun_path, path);
    if (bind(fd, (struct sockaddr *)&address, sizeof address)) die("bind");
    if (listen(fd, BACKLOG)) die("listen");
    printf("listening on unix:%s\n", path);
    fflush(stdout);
    return fd;
}

int main(int argc, char **argv) {
    const char *where = "127.0.0.1:0", *path = NULL;
    struct epoll_event events[EVENTS];
    int max_connections = 20000;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--broadcast")) broadcast = true;
        else if (!strcmp(argv[i], "--listen") && i + 1 < argc) where = argv[++i];
        else if (!strcmp(argv[i], "--unix") && i + 1 < argc) path = argv[++i];
        else if (!strcmp(argv[i], "--max-connections") && i + 1 < argc) max_connections = atoi(argv[++i]);
        else {
            fprintf(stderr, "unknown or incomplete argument: %s\n", argv[i]);
            return 2;
        }
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* end when the benchmark ends for any cause */
    peer_limit = max_connections + SPARE_FDS;
    peers = must(calloc(peer_limit, sizeof *peers));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (epoll_fd < 0) die("epoll_create1");
    listen_fd = path ? listen_at(path) : listen_on(where);
    if (path) interest &= ~EPOLLOUT;
    struct epoll_event e = {.events = EPOLLIN | EPOLLET, .data.fd = listen_fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &e)) die("epoll_ctl");
    for (;;) {
        int n = epoll_wait(epoll_fd, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listen_fd) accept_all();
            else if (peers[fd].open) serve(fd, events[i].events);
        }
    }
}
