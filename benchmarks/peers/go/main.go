// The Go runner with plugins of the same effect as those in benchmarks/plugins. It is built with the runner's sources
// from a checkout (see benchmarks/README.md) and logs warnings and worse, as in production.
package main

import (
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	runnerhttp "github.com/apache/apisix-go-plugin-runner/pkg/http"
	"github.com/apache/apisix-go-plugin-runner/pkg/plugin"
	"github.com/apache/apisix-go-plugin-runner/pkg/runner"
	"go.uber.org/zap/zapcore"
)

const (
	header = "X-Resp-A6-Runner"
	value  = "Go"
	body   = "Hello, Go Runner of APISIX"
	wait   = 2 * time.Millisecond
)

// The runner has no way to list a request's headers, so echo names those that the frame holds.
var headersOfTheFrame = []string{
	"Host", "User-Agent", "Accept", "X-Request-Id", "Cookie", "Authorization", "Content-Type", "Accept-Encoding",
}

// named is a plugin of which only the name and the filters matter.
type named struct {
	plugin.DefaultPlugin
	name     string
	filter   func(w http.ResponseWriter, r runnerhttp.Request)
	response func(w runnerhttp.Response)
}

func (n *named) Name() string { return n.name }

func (n *named) ParseConf(in []byte) (interface{}, error) { return nil, nil }

func (n *named) RequestFilter(_ interface{}, w http.ResponseWriter, r runnerhttp.Request) {
	if n.filter != nil {
		n.filter(w, r)
	}
}

func (n *named) ResponseFilter(_ interface{}, w runnerhttp.Response) {
	if n.response != nil {
		n.response(w)
	}
}

func answer(w http.ResponseWriter, status int) {
	w.Header().Set(header, value)
	w.WriteHeader(status)
	if _, err := w.Write([]byte(body)); err != nil {
		log.Print(err)
	}
}

func sleep(http.ResponseWriter, runnerhttp.Request) { time.Sleep(wait) }

var plugins = []*named{
	{name: "stop", filter: func(w http.ResponseWriter, r runnerhttp.Request) { answer(w, 201) }},
	{name: "rewrite", filter: func(w http.ResponseWriter, r runnerhttp.Request) {
		r.Header().Set(header, value)
		r.Args().Set("a6_runner", value)
		r.SetPath([]byte("/a6/go/runner"))
	}},
	{name: "echo", filter: func(w http.ResponseWriter, r runnerhttp.Request) {
		for _, name := range headersOfTheFrame {
			w.Header().Set(name, r.Header().Get(name))
		}
		answer(w, 200)
	}},
	{name: "var", filter: func(w http.ResponseWriter, r runnerhttp.Request) {
		address, err := r.Var("remote_addr")
		if err != nil {
			log.Print(err)
		}
		r.Header().Set("X-Remote-Addr", string(address))
	}},
	{name: "body", filter: func(w http.ResponseWriter, r runnerhttp.Request) {
		read, err := r.Body()
		if err != nil {
			log.Print(err)
		}
		r.Header().Set("X-Body-Length", strconv.Itoa(len(read)))
	}},
	{name: "blocking", filter: sleep},
	{name: "async", filter: sleep}, // a goroutine that sleeps is both
	{name: "respond", response: func(w runnerhttp.Response) { w.Header().Set(header, value) }},
}

func main() {
	for _, p := range plugins {
		if err := plugin.RegisterPlugin(p); err != nil {
			log.Fatal(err)
		}
	}
	runner.Run(runner.RunnerConfig{LogLevel: zapcore.WarnLevel, LogOutput: os.Stderr})
}
