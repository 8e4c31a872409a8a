package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"penstock/config"
)

// An environment is what a command may use of the world.
type environment struct {
	ctx            context.Context
	getenv         func(string) (string, bool)
	stdin          io.Reader
	stdout, stderr io.Writer
}

// commands is the command line.
type commands struct {
	Serve     serveCommand     `cmd:"" default:"withargs" help:"Run the gateway (the default)."`
	Check     checkCommand     `cmd:"" help:"Check a configuration file and print what it amounts to, secrets masked."`
	Demo      demoCommand      `cmd:"" help:"Run the gateway in front of a simulated provider: no key, no network."`
	Simulate  simulateCommand  `cmd:"" name:"simulate-provider" help:"Run the simulated provider alone."`
	Keys      keysCommand      `cmd:"" help:"Make, list, change, rotate and revoke client keys of a running gateway."`
	Teams     teamsCommand     `cmd:"" help:"Make, list, change and delete teams of a running gateway."`
	Limits    limitsCommand    `cmd:"" help:"Show where every limit of a running gateway stands."`
	Explain   explainCommand   `cmd:"" help:"Explain what happened to a request, and why."`
	Usage     usageCommand     `cmd:"" help:"Show what was used and what it cost."`
	Schema    schemaCommand    `cmd:"" help:"Print the JSON Schema of the configuration file."`
	Health    healthCommand    `cmd:"" name:"healthcheck" help:"Ask a running gateway whether it is alive; for container health checks."`
	VersionIs versionIsCommand `cmd:"" name:"version" help:"Print the version."`
}

// run is the whole program as a function of its inputs. It returns the exit code.
func run(ctx context.Context, args []string, getenv func(string) (string, bool), stdin io.Reader, stdout, stderr io.Writer) int {
	env := &environment{ctx, getenv, stdin, stdout, stderr}
	code := -1
	parser, err := kong.New(&commands{}, kong.Name("penstock"),
		kong.Description("Penstock is a gateway that shares the quotas of LLM providers: it queues, limits, retries and relays.\nPoint OPENAI_BASE_URL at it."),
		kong.Writers(stdout, stderr), kong.Exit(func(c int) { code = c }), kong.UsageOnError(),
		kong.Bind(env))
	if err != nil {
		fmt.Fprintln(stderr, "penstock:", err)
		return 1
	}
	args = usual(args)
	parsed, err := parser.Parse(args)
	if code >= 0 {
		return code // --help
	}
	if err != nil {
		fmt.Fprintf(stderr, "penstock: %v; %s\n", err, advice(args, err))
		return 2
	}
	if err := parsed.Run(env); err != nil {
		report(stderr, err)
		return 1
	}
	return 0
}

// usual understands what people try first on a program they do not know.
func usual(args []string) []string {
	if len(args) == 0 {
		return args
	}
	switch args[0] {
	case "help":
		return append(slices.Clone(args[1:]), "--help")
	case "--version", "-v":
		return []string{"version"}
	}
	return args
}

// advice says what to do about a wrong command line.
func advice(args []string, err error) string {
	for _, a := range args {
		if kind := filepath.Ext(a); (kind == ".yaml" || kind == ".yml") && strings.HasSuffix(err.Error(), "unexpected argument "+a) {
			return "a configuration file is given as penstock --config " + a
		}
	}
	command := "penstock"
	var wrong *kong.ParseError
	if errors.As(err, &wrong) {
		for _, step := range wrong.Context.Path {
			if step.Command != nil && slices.Contains(args, step.Command.Name) { // not the default command
				command += " " + step.Command.Name
			}
		}
	}
	return "see " + command + " --help"
}

// report prints an error; the problems of a configuration each on a line of their
// own.
func report(w io.Writer, err error) {
	var problems config.Errors
	if errors.As(err, &problems) {
		for _, p := range problems {
			fmt.Fprintln(w, p)
		}
		return
	}
	fmt.Fprintln(w, "penstock:", err)
}

type checkCommand struct {
	File   string `arg:"" optional:"" placeholder:"FILE" help:"Configuration file; zero configuration from the environment when absent." type:"path"`
	Config string `short:"c" placeholder:"FILE" env:"PENSTOCK_CONFIG" help:"The same, spelled as for serve." type:"path"`
}

// Run prints the effective configuration, or all problems at once.
func (c *checkCommand) Run(env *environment) error {
	file := c.File
	if file == "" {
		file = c.Config
	}
	cfg, err := loadConfig(file, env)
	if err != nil {
		return err
	}
	text, err := cfg.Effective()
	if err != nil {
		return err
	}
	_, err = env.stdout.Write(text)
	return err
}

func loadConfig(path string, env *environment) (*config.Config, error) {
	if path == "" {
		return config.FromEnvironment(env.getenv)
	}
	return config.Load(path, env.getenv)
}

type schemaCommand struct{}

// Run prints the schema.
func (schemaCommand) Run(env *environment) error {
	_, err := env.stdout.Write(config.Schema())
	return err
}

type versionIsCommand struct{}

// Run prints the version.
func (versionIsCommand) Run(env *environment) error {
	_, err := fmt.Fprintln(env.stdout, "penstock", version)
	return err
}

type healthCommand struct {
	URL     string        `default:"http://127.0.0.1:9090/healthz" help:"What to ask."`
	Timeout time.Duration `default:"3s" help:"How long to wait."`
}
