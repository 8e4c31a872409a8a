package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"penstock/config"
	"penstock/simulate"
)

// simulateFlags say how the simulated provider behaves.
type simulateFlags struct {
	RPM          int64          `name:"rpm" help:"Requests per window; 0 for no limit." default:"0"`
	TPM          int64          `name:"tpm" help:"Tokens per window; 0 for no limit." default:"0"`
	Concurrency  int            `help:"Requests in flight; 0 for no limit." default:"0"`
	Window       time.Duration  `help:"Length of the window." default:"1m"`
	Mode         simulate.Mode  `help:"How windows are enforced: bucket or sliding." default:"bucket"`
	Count        simulate.Count `help:"What the token limit counts: actual or max_tokens." default:"actual"`
	TTFT         time.Duration  `name:"ttft" help:"Time to the first token; 0 for none." default:"300ms"`
	TTFTJitter   time.Duration  `name:"ttft-jitter" help:"Random time added to it." default:"100ms"`
	TokenTime    time.Duration  `help:"Time per output token; 0 for none." default:"20ms"`
	OutputTokens int            `help:"Length of an answer in tokens." default:"40"`
	ChunkTokens  int            `help:"Tokens per stream event." default:"1"`
	APIKey       string         `name:"api-key" env:"SIMULATOR_API_KEY" help:"Key that requests must carry; any when empty."`
	Models       []string       `help:"Models that it lists." default:"gpt-4o,gpt-4o-mini"`
	Strict       bool           `help:"Refuse other models."`
	Fault        []string       `help:"Faults to inject, such as 'status=503;p=0.1'; see docs/simulator.md." sep:"none"`
	Seed         uint64         `help:"Seed of random choices." default:"1"`
}

func (f *simulateFlags) provider() (*simulate.Provider, error) {
	c := simulate.Config{
		TTFT: f.TTFT, TTFTJitter: f.TTFTJitter, TokenTime: f.TokenTime, OutputTokens: f.OutputTokens, ChunkTokens: f.ChunkTokens,
		Models: f.Models, Strict: f.Strict, APIKey: f.APIKey, RPM: f.RPM, TPM: f.TPM, Concurrency: f.Concurrency,
		Window: f.Window, Mode: f.Mode, Count: f.Count, Seed: f.Seed,
	}
	if f.TTFT == 0 {
		c.TTFT = simulate.NoWait
	}
	if f.TokenTime == 0 {
		c.TokenTime = simulate.NoWait
	}
	for _, text := range f.Fault {
		faults, err := simulate.ParseFaults(text)
		if err != nil {
			return nil, fmt.Errorf("--fault: %w", err)
		}
		c.Faults = append(c.Faults, faults)
	}
	return simulate.New(c), nil
}

type simulateCommand struct {
	simulateFlags
	Listen string `help:"Address to listen on." default:"127.0.0.1:9100"`
}

// Run serves the simulated provider until the context ends.
func (c *simulateCommand) Run(env *environment) error {
	p, err := c.provider()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w; choose another address with --listen", err)
	}
	fmt.Fprintf(env.stderr, "simulated provider at http://%s/v1\n", l.Addr())
	return serveSimulator(env.ctx, l, p)
}

func serveSimulator(ctx context.Context, l net.Listener, p http.Handler) error {
	s := &http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type demoCommand struct {
	simulateFlags
	Listen string `help:"Address of the gateway." default:"127.0.0.1:8080"`
	Admin  string `help:"Address of the admin listener." default:"127.0.0.1:9090"`
}

// Run serves the gateway with a simulated provider behind it, whose limits, when
// set, the gateway knows.
func (c *demoCommand) Run(env *environment) error {
	p, err := c.provider()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the simulated provider: %w", err)
	}
	cfg, err := c.config(l.Addr().String())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serveSimulator(ctx, l, p) }()
	g, err := newGateway(cfg, env)
	if err == nil {
		fmt.Fprintf(env.stderr, `
The gateway is at http://%[1]s/v1, metrics at http://%[2]s/metrics. Try:

  curl http://%[1]s/v1/chat/completions -H 'Content-Type: application/json' \
    -d '{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"Hello"}]}'

Add -i -H 'x-penstock-explain: 1' to see which limits were asked and where it went.
The simulated provider behind it is at http://%[3]s/v1, what it saw at http://%[3]s/simulator/stats.

`, g.lis.Addr(), c.Admin, l.Addr())
		err = g.serve(env.ctx)
	}
	cancel()
	return errors.Join(err, <-done)
}

func (c *demoCommand) config(upstream string) (*config.Config, error) {
	cfg := config.Default()
	cfg.Listen, cfg.Admin.Listen, cfg.Log.Format, cfg.Explain.Header = c.Listen, c.Admin, "text", true
	up := config.Upstream{Type: "openai", BaseURL: "http://" + upstream + "/v1", APIKey: config.Secret(c.APIKey), Timeouts: cfg.Timeouts}
	window := config.Duration(c.Window)
	if c.RPM > 0 {
		up.Limits.Requests = config.Rates{{Limit: config.Amount(c.RPM), Per: window, Burst: config.Amount(c.RPM)}}
	}
	if c.TPM > 0 {
		up.Limits.Tokens = config.Rates{{Limit: config.Amount(c.TPM), Per: window, Burst: config.Amount(c.TPM)}}
	}
	if c.Concurrency > 0 {
		up.Limits.Concurrency = &config.Slots{Limit: int64(c.Concurrency)}
	}
	up.Models = make(map[string]config.Model, len(c.Models))
	for _, m := range c.Models {
		up.Models[m] = config.Model{}
	}
	cfg.Upstreams = map[string]config.Upstream{"simulated": up}
	cfg.DefaultUpstream = "simulated"
	return &cfg, nil
}

// Run asks once.
func (c *healthCommand) Run(env *environment) error {
	ctx, cancel := context.WithTimeout(env.ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return err
	}
	resp, err := new(http.Client).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %d", c.URL, resp.StatusCode)
	}
	return nil
}
