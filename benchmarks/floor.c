/* floor: the least that a runner can cost. It answers every frame with a canned one, from one thread, by epoll.
 *
 *   floor SOCK
 *
 * PrepareConf is answered with token 1, anything else with an HTTPReqCall answer without an action. It reads no more of
 * a frame than its length. What it costs is the kernel's share: poll, receive, send.
 *
 * Build: cc -O2 -o floor floor.c
 */
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const unsigned char prepared[] = {1, 0, 0, 20, 4, 0, 0, 0, 248, 255, 255, 255, 1, 0, 0, 0, 6, 0, 8, 0, 4, 0, 0, 0};
static const unsigned char passed[] = {2, 0, 0, 20, 4, 0, 0, 0, 248, 255, 255, 255, 1, 0, 0, 0, 6, 0, 8, 0, 4, 0, 0, 0};

struct conn {
  int fd;
  size_t got;
  unsigned char buf[65536];
};

static void serve(struct conn *c) {
  ssize_t r = recv(c->fd, c->buf + c->got, sizeof c->buf - c->got, 0);
  if (r <= 0) {
    close(c->fd);
    free(c);
    return;
  }
  c->got += r;
  if (c->got < 4 || c->got < 4u + (c->buf[1] << 16 | c->buf[2] << 8 | c->buf[3])) return;
  c->got = 0;
  if (send(c->fd, c->buf[0] == 1 ? prepared : passed, sizeof passed, MSG_NOSIGNAL) < 0) return;
}

int main(int argc, char **argv) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  if (argc != 2) return 2;
  strncpy(a.sun_path, argv[1], sizeof a.sun_path - 1);
  int listener = socket(AF_UNIX, SOCK_STREAM, 0), ep = epoll_create1(0);
  if (bind(listener, (void *)&a, sizeof a) || listen(listener, 512)) return 2;
  struct epoll_event e = {.events = EPOLLIN}, ev[256];
  epoll_ctl(ep, EPOLL_CTL_ADD, listener, &e);
  for (;;) {
    int n = epoll_wait(ep, ev, 256, -1);
    for (int i = 0; i < n; i++) {
      if (ev[i].data.ptr) {
        serve(ev[i].data.ptr);
        continue;
      }
      struct conn *c = calloc(1, sizeof *c);
      if (!c || (c->fd = accept(listener, 0, 0)) < 0) return 2;
      e.data.ptr = c;
      epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    }
  }
}
