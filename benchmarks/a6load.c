/* a6load: closed-loop load generator for the APISIX ext-plugin protocol over a unix socket.
 *
 *   a6load [-i INFO.bin] [-t TOKENS.bin] SOCK PREPARE.bin CALL.bin TOKEN_OFFSET CONNS SECONDS [SERVER_PID...]
 *
 * PREPARE.bin and CALL.bin are whole frames (4-byte header included). The conf token that the answer
 * to PREPARE carries is written, little-endian, at TOKEN_OFFSET of CALL. With TOKENS, which holds tokens
 * of four bytes each, the calls go through those instead, one after the other. The first answer to CALL, on
 * a connection of its own, is the reference: an answer of another type or length counts as bad. Whenever the
 * server asks for extra information in the middle of a call, INFO is the answer. The first tenth of the run
 * is warm-up. With server pids given, their CPU time per request is printed too (user + system; name every
 * process of the server, since children are not followed).
 *
 * Exit status: 0, or 1 with bad answers, 2 on a usage or socket error, 3 when the server closed or
 * answered with an error frame.
 *
 * Build: cc -O2 -o a6load a6load.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define FRAME_MAX (1 << 24)
#define BUCKETS 500000 /* one per microsecond */
#define EXTRA_INFO 3   /* the type of a frame that asks instead of answering */

struct conn {
  int fd;
  double sent;
  unsigned char *buf;
  size_t got, cap;
};

static unsigned histogram[BUCKETS];
static unsigned char *info; /* the answer to a question for extra information, if one was given */
static size_t info_len;
static unsigned char *tokens; /* the conf tokens to go through, if any were given */
static size_t tokens_len, next_token;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(int code, const char *what) {
  fprintf(stderr, "a6load: %s: %s\n", what, strerror(errno));
  exit(code);
}

static unsigned char *slurp(const char *path, size_t *n) {
  FILE *f = fopen(path, "rb");
  if (!f) die(2, path);
  unsigned char *b = malloc(FRAME_MAX + 4);
  *n = fread(b, 1, FRAME_MAX + 4, f);
  fclose(f);
  return b;
}

static int dial(const char *path) {
  int s = socket(AF_UNIX, SOCK_STREAM, 0);
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  strncpy(a.sun_path, path, sizeof a.sun_path - 1);
  if (connect(s, (void *)&a, sizeof a)) die(2, "connect");
  return s;
}

static void put(int fd, const unsigned char *b, size_t n) {
  while (n) {
    ssize_t w = send(fd, b, n, MSG_NOSIGNAL);
    if (w < 0 && errno == EAGAIN) continue;
    if (w <= 0) die(3, "send");
    b += w, n -= w;
  }
}

static size_t frame_len(const unsigned char *b) { return 4 + (b[1] << 16 | b[2] << 8 | b[3]); }

static void answer_question(int fd) {
  if (!info) {
    fprintf(stderr, "a6load: the server asked for extra information, and no -i was given\n");
    exit(3);
  }
  put(fd, info, info_len);
}

static size_t get_frame(int fd, unsigned char *b) {
  size_t got = 0, want = 4;
  while (got < want) {
    ssize_t r = recv(fd, b + got, want - got, 0);
    if (r <= 0) die(3, "server closed");
    got += r;
    if (got == 4) want = frame_len(b);
    if (got == want && b[0] == EXTRA_INFO) answer_question(fd), got = 0, want = 4;
  }
  return got;
}

static void put_call(int fd, unsigned char *call, size_t n, size_t token_offset) {
  if (tokens) {
    memcpy(call + token_offset, tokens + next_token, 4);
    next_token = (next_token + 4) % tokens_len;
  }
  put(fd, call, n);
}

static uint32_t u32(const unsigned char *p) { return p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24; }
static uint16_t u16(const unsigned char *p) { return p[0] | p[1] << 8; }

static double cpu_seconds(int n, char **pids) {
  double sum = 0;
  for (int i = 0; i < n; i++) {
    char path[64], line[4096];
    snprintf(path, sizeof path, "/proc/%s/stat", pids[i]);
    FILE *f = fopen(path, "r");
    if (!f) continue;
    if (fgets(line, sizeof line, f)) {
      unsigned long u = 0, s = 0;
      sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &u, &s);
      sum += (u + s) / (double)sysconf(_SC_CLK_TCK);
    }
    fclose(f);
  }
  return sum;
}

static double quantile(unsigned long total, double q) {
  unsigned long seen = 0;
  for (int i = 0; i < BUCKETS; i++)
    if ((seen += histogram[i]) >= total * q) return i;
  return BUCKETS;
}

int main(int argc, char **argv) {
  for (; argc > 2 && argv[1][0] == '-'; argv += 2, argc -= 2) {
    if (!strcmp(argv[1], "-i")) info = slurp(argv[2], &info_len);
    if (!strcmp(argv[1], "-t")) tokens = slurp(argv[2], &tokens_len), tokens_len -= tokens_len % 4;
    if (tokens && !tokens_len) die(2, "no tokens");
  }
  if (argc < 7) {
    fprintf(stderr, "usage: a6load [-i INFO.bin] [-t TOKENS.bin] SOCK PREPARE.bin CALL.bin TOKEN_OFFSET CONNS SECONDS "
                    "[SERVER_PID...]\n");
    return 2;
  }
  size_t prepare_len, call_len, offset = atol(argv[4]);
  unsigned char *prepare = slurp(argv[2], &prepare_len), *call = slurp(argv[3], &call_len);
  int n_conns = atoi(argv[5]), n_pids = argc - 7;
  double seconds = atof(argv[6]);
  unsigned char *b = malloc(FRAME_MAX + 4);

  int fd = dial(argv[1]);
  put(fd, prepare, prepare_len);
  get_frame(fd, b);
  if (b[0] != 1) return fprintf(stderr, "a6load: PrepareConf was answered with type %d\n", b[0]), 3;
  unsigned char *table = b + 4 + u32(b + 4), *vtable = table - (int32_t)u32(table);
  unsigned field = u16(vtable) > 4 ? u16(vtable + 4) : 0;
  memcpy(call + offset, &(uint32_t){field ? u32(table + field) : 0}, 4);
  close(fd);
  fd = dial(argv[1]);
  put_call(fd, call, call_len, offset);
  size_t want = get_frame(fd, b);
  unsigned char want_type = b[0];
  if (want_type == 0) return fprintf(stderr, "a6load: the call was answered with an error frame\n"), 3;
  close(fd);

  int ep = epoll_create1(0);
  struct conn *conns = calloc(n_conns, sizeof *conns);
  for (int i = 0; i < n_conns; i++) {
    struct conn *c = &conns[i];
    c->fd = dial(argv[1]);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    c->buf = malloc(c->cap = want + 65536);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
  }
  double start = now(), end = start + seconds, warm = start + seconds * 0.1, t = start, t0 = 0, cpu0 = 0;
  unsigned long done = 0, bad = 0;
  for (int i = 0; i < n_conns; i++) conns[i].sent = now(), put_call(conns[i].fd, call, call_len, offset);
  struct epoll_event ev[256];
  while (t < end) {
    int k = epoll_wait(ep, ev, 256, 100);
    t = now();
    if (!t0 && t >= warm) t0 = t, done = 0, cpu0 = cpu_seconds(n_pids, argv + 7);
    for (int j = 0; j < k; j++) {
      struct conn *c = ev[j].data.ptr;
      ssize_t r = recv(c->fd, c->buf + c->got, c->cap - c->got, 0);
      if (r <= 0) die(3, "server closed");
      c->got += r;
      while (c->got >= 4 && c->buf[0] == EXTRA_INFO && c->got >= frame_len(c->buf)) {
        size_t n = frame_len(c->buf);
        memmove(c->buf, c->buf + n, c->got -= n);
        answer_question(c->fd);
      }
      if (c->got < 4 || c->got < frame_len(c->buf)) continue;
      if (c->buf[0] != want_type || c->got != want) bad++;
      double q = now();
      unsigned us = (q - c->sent) * 1e6;
      if (t0) done++, histogram[us < BUCKETS ? us : BUCKETS - 1]++;
      c->got = 0, c->sent = q;
      put_call(c->fd, call, call_len, offset);
    }
  }
  double elapsed = now() - t0, cpu = cpu_seconds(n_pids, argv + 7) - cpu0;
  printf("conns %d rps %.0f p50 %.0f us p99 %.0f us p99.9 %.0f us max_bad %lu cpu_us/req %.2f\n", n_conns,
         done / elapsed, quantile(done, .5), quantile(done, .99), quantile(done, .999), bad,
         n_pids ? cpu * 1e6 / done : 0.0);
  return bad ? 1 : 0;
}
