/* A client of resp in C, with hiredis: values, a pipeline, and a subscription. */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static redisContext *connect_to(int port) {
    redisContext *c = redisConnect("127.0.0.1", port);
    if (c == NULL || c->err) {
        fprintf(stderr, "connect: %s\n", c ? c->errstr : "no memory");
        exit(1);
    }
    return c;
}

static void check(int ok, const char *what, const redisReply *reply) {
    if (!ok) {
        const char *text = reply && reply->str ? reply->str : "";
        fprintf(stderr, "%s: type %d, %s\n", what, reply ? reply->type : -1, text);
        exit(1);
    }
}

int main(int argc, char **argv) {
    enum { LONG = 1000000, MANY = 1000 };
    int port = argc > 1 ? atoi(argv[1]) : 0;
    redisContext *c = connect_to(port);
    redisReply *reply;
    char *value = malloc(LONG);
    if (value == NULL) return 1;
    memset(value, 'v', LONG);
    value[1] = '\0';
    value[2] = '\n';

    reply = redisCommand(c, "SET %s %b", "long", value, (size_t)LONG);
    check(reply && reply->type == REDIS_REPLY_STATUS, "SET", reply);
    freeReplyObject(reply);
    reply = redisCommand(c, "GET long");
    check(reply && reply->type == REDIS_REPLY_STRING && reply->len == LONG &&
              memcmp(reply->str, value, LONG) == 0, "GET", reply);
    freeReplyObject(reply);
    reply = redisCommand(c, "GET none");
    check(reply && reply->type == REDIS_REPLY_NIL, "GET none", reply);
    freeReplyObject(reply);
    reply = redisCommand(c, "INCR long");
    check(reply && reply->type == REDIS_REPLY_ERROR, "INCR", reply);
    freeReplyObject(reply);

    for (int nth = 1; nth <= MANY; nth++) redisAppendCommand(c, "INCR counter");
    for (int nth = 1; nth <= MANY; nth++) {
        void *next = NULL;
        check(redisGetReply(c, &next) == REDIS_OK, "pipeline", NULL);
        reply = next;
        check(reply->type == REDIS_REPLY_INTEGER && reply->integer == nth, "INCR", reply);
        freeReplyObject(reply);
    }

    redisContext *subscriber = connect_to(port);
    reply = redisCommand(subscriber, "SUBSCRIBE news");
    check(reply && reply->type == REDIS_REPLY_ARRAY && reply->elements == 3, "SUBSCRIBE", reply);
    freeReplyObject(reply);
    for (int nth = 0; nth < MANY; nth++) {
        reply = redisCommand(c, "PUBLISH news %d", nth);
        check(reply && reply->type == REDIS_REPLY_INTEGER && reply->integer == 1, "PUBLISH", reply);
        freeReplyObject(reply);
    }
    for (int nth = 0; nth < MANY; nth++) {
        void *next = NULL;
        check(redisGetReply(subscriber, &next) == REDIS_OK, "message", NULL);
        reply = next;
        check(reply->elements == 3 && atoi(reply->element[2]->str) == nth, "order", reply);
        freeReplyObject(reply);
    }
    redisFree(subscriber);
    redisFree(c);
    free(value);
    printf("1 MB, %d pipelined, %d messages\n", MANY, MANY);
    return 0;
}
