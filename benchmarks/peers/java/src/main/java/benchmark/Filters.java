package benchmark;

import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import org.apache.apisix.plugin.runner.HttpRequest;
import org.apache.apisix.plugin.runner.HttpResponse;
import org.apache.apisix.plugin.runner.PostRequest;
import org.apache.apisix.plugin.runner.PostResponse;
import org.apache.apisix.plugin.runner.filter.PluginFilter;
import org.apache.apisix.plugin.runner.filter.PluginFilterChain;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;

/** Filters of the same effect as the plugins in benchmarks/plugins. */
@Configuration(proxyBeanMethods = false)
public class Filters {
    private static final String HEADER = "X-Resp-A6-Runner";
    private static final String VALUE = "Java";
    private static final String BODY = "Hello, Java Runner of APISIX";
    private static final long WAIT = 2; // milliseconds

    /** A filter of which only the name and what it does matter. */
    private abstract static class Named implements PluginFilter {
        private final String name;

        Named(String name) {
            this.name = name;
        }

        @Override
        public String name() {
            return name;
        }

        void change(HttpRequest request, HttpResponse response) {
        }

        @Override
        public void filter(HttpRequest request, HttpResponse response, PluginFilterChain chain) {
            change(request, response);
            chain.filter(request, response);
        }
    }

    private static void answer(HttpResponse response, int status) {
        response.setHeader(HEADER, VALUE);
        response.setStatusCode(status);
        response.setBody(BODY);
    }

    @Bean
    PluginFilter stop() {
        return new Named("stop") {
            @Override
            void change(HttpRequest request, HttpResponse response) {
                answer(response, 201);
            }
        };
    }

    @Bean
    PluginFilter rewrite() {
        return new Named("rewrite") {
            @Override
            void change(HttpRequest request, HttpResponse response) {
                request.setHeader(HEADER, VALUE);
                request.setArg("a6_runner", VALUE);
                request.setPath("/a6/java/runner");
            }
        };
    }

    @Bean
    PluginFilter echo() {
        return new Named("echo") {
            @Override
            void change(HttpRequest request, HttpResponse response) {
                for (Map.Entry<String, String> header : request.getHeaders().entrySet()) {
                    response.setHeader(header.getKey(), header.getValue());
                }
                answer(response, 200);
            }
        };
    }

    @Bean
    PluginFilter var() {
        return new Named("var") {
            @Override
            public List<String> requiredVars() {
                return List.of("remote_addr");
            }

            @Override
            void change(HttpRequest request, HttpResponse response) {
                request.setHeader("X-Remote-Addr", request.getVars("remote_addr"));
            }
        };
    }

    @Bean
    PluginFilter body() {
        return new Named("body") {
            @Override
            public Boolean requiredBody() {
                return true;
            }

            @Override
            void change(HttpRequest request, HttpResponse response) {
                request.setHeader("X-Body-Length", String.valueOf(request.getBody().length()));
            }
        };
    }

    @Bean
    PluginFilter blocking() {
        return new Named("blocking") {
            @Override
            void change(HttpRequest request, HttpResponse response) {
                try {
                    Thread.sleep(WAIT);
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
            }
        };
    }

    @Bean
    PluginFilter async() {
        ScheduledExecutorService timer = Executors.newSingleThreadScheduledExecutor();
        return new Named("async") {
            @Override
            public void filter(HttpRequest request, HttpResponse response, PluginFilterChain chain) {
                timer.schedule(() -> chain.filter(request, response), WAIT, TimeUnit.MILLISECONDS);
            }
        };
    }

    @Bean
    PluginFilter respond() {
        return new Named("respond") {
            @Override
            public void postFilter(PostRequest request, PostResponse response, PluginFilterChain chain) {
                for (Map.Entry<String, String> header : request.getUpstreamHeaders().entrySet()) {
                    response.setHeader(header.getKey(), header.getValue());
                }
                response.setHeader(HEADER, VALUE);
                chain.postFilter(request, response);
            }
        };
    }
}
