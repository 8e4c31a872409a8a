// Package config reads the one YAML file that configures Penstock: strict
// decoding, secrets from environment and files, validation that names file, line
// and key, and reload.
package config

// A Config is the whole file. The zero Config is not usable: start from Default,
// or load a file, which fills the defaults in.
type Config struct {
	Listen          string              `yaml:"listen,omitempty" jsonschema_description:"Address of the data listener, where clients send their API requests. Any address but loopback needs teams with keys, or insecure_no_auth." jsonschema:"default=127.0.0.1:8080,example=:8080"`
	InsecureNoAuth  bool                `yaml:"insecure_no_auth,omitempty" jsonschema_description:"Accept requests without a client key on a non-loopback address. Whoever reaches the port spends your money." jsonschema:"default=false"`
	Admin           Admin               `yaml:"admin,omitempty" jsonschema_description:"The admin listener: metrics, health, readiness, profiles."`
	Log             Log                 `yaml:"log,omitempty" jsonschema_description:"Logs on standard error."`
	Upstreams       map[string]Upstream `yaml:"upstreams,omitempty" jsonschema_description:"Provider accounts or servers that requests are sent to, by name. When absent, they are made from OPENAI_API_KEY and similar environment variables."`
	Models          map[string]Route    `yaml:"models,omitempty" jsonschema_description:"Routes: for each model name that clients use, the upstreams that serve it. The name * stands for every model that is not listed. When absent, every upstream serves the models listed under it, and the default upstream serves every other."`
	DefaultUpstream string              `yaml:"default_upstream,omitempty" jsonschema_description:"The upstream for requests that name no model, such as files and batches. The first by name when absent." jsonschema:"example=openai"`
	Teams           map[string]Team     `yaml:"teams,omitempty" jsonschema_description:"Client teams by name, each with its keys, weight and limits. When absent, no client key is asked for."`
	Gateway         Gateway             `yaml:"gateway,omitempty" jsonschema_description:"Limits on the whole process."`
	Queue           Queue               `yaml:"queue,omitempty" jsonschema_description:"The fair queue in which requests wait for an upstream."`
	Retry           Retry               `yaml:"retry,omitempty" jsonschema_description:"Attempts and back-off before the first byte has gone to the client."`
	Timeouts        Timeouts            `yaml:"timeouts,omitempty" jsonschema_description:"Time limits for every upstream; an upstream may set its own."`
	Breaker         Breaker             `yaml:"breaker,omitempty" jsonschema_description:"Circuit breakers, one for each upstream and model."`
	Tokens          Tokens              `yaml:"tokens,omitempty" jsonschema_description:"How tokens are estimated before a request is sent."`
	Relay           Relay               `yaml:"relay,omitempty" jsonschema_description:"How answers go to the client."`
	Explain         Explain             `yaml:"explain,omitempty" jsonschema_description:"Explanations of single requests."`
	Drain           Drain               `yaml:"drain,omitempty" jsonschema_description:"What happens on SIGTERM."`
	Redis           *Redis              `yaml:"redis,omitempty" jsonschema_description:"A Redis or Valkey through which several gateways share their limits, so that they count as one. Without it every process counts for itself. A change takes effect at the next start, except for on_store_loss."`
	Database        Database            `yaml:"database,omitempty" jsonschema_description:"Durable state. Without a database nothing is kept beyond the process: there is no usage ledger, and budgets begin anew at a restart."`
	Prices          map[string]Prices   `yaml:"prices,omitempty" jsonschema_description:"Prices of models, in US dollars for a million tokens, before those that come with Penstock. The name is that of a model or of an upstream and a model (openai/gpt-4o), and may end in *."`
	Usage           Usage               `yaml:"usage,omitempty" jsonschema_description:"The usage ledger: one row for each finished request, in the database."`

	secretFiles []string
}

// Admin configures the admin listener.
type Admin struct {
	Listen string `yaml:"listen,omitempty" jsonschema_description:"Address of the admin listener. Any address but loopback needs a token. The word off switches it off." jsonschema:"default=127.0.0.1:9090,example=:9090"`
	Token  Secret `yaml:"token,omitempty" jsonschema_description:"Bearer token that admin requests must carry, except for /healthz and /readyz." jsonschema:"example=${PENSTOCK_ADMIN_TOKEN}"`
	// Tokens tell who made a change.
	Tokens []AdminToken `yaml:"tokens,omitempty" jsonschema_description:"Further tokens, one for each person or tool, whose names the audit log tells. The token above is called admin."`
	Pprof  bool         `yaml:"pprof,omitempty" jsonschema_description:"Serve Go profiles under /debug/pprof/." jsonschema:"default=false"`
	// OpenMetrics lets a scraper read /metrics without the token.
	OpenMetrics bool `yaml:"open_metrics,omitempty" jsonschema_description:"Serve /metrics without the token, for scrapers in a closed network." jsonschema:"default=false"`
}

// An AdminToken is a token of one person or tool.
type AdminToken struct {
	Name  string `yaml:"name" jsonschema_description:"Name in the audit log." jsonschema:"example=alice"`
	Token Secret `yaml:"token" jsonschema_description:"The token." jsonschema:"example=${ALICE_ADMIN_TOKEN}"`
}

// Log configures the log on standard error.
type Log struct {
	Format string `yaml:"format,omitempty" jsonschema_description:"One JSON object a line, or text for people." jsonschema:"enum=json,enum=text,default=json"`
	Level  string `yaml:"level,omitempty" jsonschema_description:"The least level that is written." jsonschema:"enum=debug,enum=info,enum=warn,enum=error,default=info"`
	Access *bool  `yaml:"access,omitempty" jsonschema_description:"Write one line for each finished request." jsonschema:"default=true"`
}

// An Upstream is one provider account or server.
type Upstream struct {
	Type        string            `yaml:"type,omitempty" jsonschema_description:"The wire format it speaks." jsonschema:"enum=openai,default=openai"`
	BaseURL     string            `yaml:"base_url" jsonschema_description:"Root of its API, the part before /chat/completions." jsonschema:"example=https://api.openai.com/v1"`
	APIKey      Secret            `yaml:"api_key,omitempty" jsonschema_description:"Its key. Without one, and without teams, the client's own credential is forwarded." jsonschema:"example=${OPENAI_API_KEY}"`
	Headers     map[string]Secret `yaml:"headers,omitempty" jsonschema_description:"Headers to add to every request sent to it." jsonschema:"example=OpenAI-Project: proj_1"`
	Limits      Limits            `yaml:"limits,omitempty" jsonschema_description:"What the provider allows over all models. Requests wait for these limits; they are not refused."`
	Models      map[string]Model  `yaml:"models,omitempty" jsonschema_description:"Models with limits of their own, by the name the upstream knows them by. Their limits stand beside those of the upstream."`
	StreamUsage *bool             `yaml:"stream_usage,omitempty" jsonschema_description:"Ask for usage in streams (stream_options.include_usage) when the client did not, and keep the extra chunk from it." jsonschema:"default=true"`
	Accounting  Accounting        `yaml:"accounting,omitempty" jsonschema_description:"How the provider counts tokens against its limits, so that the buckets here mirror its own."`
	Learn       *bool             `yaml:"learn,omitempty" jsonschema_description:"Correct the limits by what the provider's rate-limit headers and 429s say." jsonschema:"default=true"`
	Timeouts    Timeouts          `yaml:"timeouts,omitempty" penstock:"inherit" jsonschema_description:"Time limits for this upstream, where they differ from the general ones."`
}

// A Model is an upstream's model with limits of its own.
type Model struct {
	Limits Limits `yaml:"limits,omitempty" jsonschema_description:"What the provider allows for this model."`
}

// Accounting says how a provider counts tokens.
type Accounting struct {
	Output      string `yaml:"output,omitempty" jsonschema_description:"What is counted for output: the tokens really written (actual), the request's own maximum (max_tokens), or that maximum until the answer has ended and then what was written (reserved). By default it is what is known of the provider in base_url: max_tokens at OpenAI, Azure and Groq, reserved at Amazon Bedrock, and auto elsewhere, which is actual until the provider's 429s show that it counts max_tokens." jsonschema:"enum=auto,enum=actual,enum=max_tokens,enum=reserved"`
	CachedInput string `yaml:"cached_input,omitempty" jsonschema_description:"Whether input tokens read from the provider's cache count." jsonschema:"enum=counted,enum=free,default=counted"`
}

// A Route says which upstreams serve a model.
type Route struct {
	Targets  []RouteTarget `yaml:"targets" jsonschema_description:"Upstreams that serve the model. A single name in place of the list is fine."`
	Strategy string        `yaml:"strategy,omitempty" jsonschema_description:"Which target is tried first: as listed, at random by weight, or the one with the largest share of its concurrency free. A target that is full, paused or broken passes the request to the next." jsonschema:"enum=ordered,enum=weighted,enum=least_loaded,default=ordered"`
}

// A RouteTarget is one upstream of a route. In the file it may be a bare name.
type RouteTarget struct {
	Upstream string `yaml:"upstream" jsonschema_description:"Name of the upstream." jsonschema:"example=openai"`
	Model    string `yaml:"model,omitempty" jsonschema_description:"Name under which this upstream knows the model; the client's own when absent." jsonschema:"example=gpt-4o-2024-08-06"`
	Weight   int    `yaml:"weight,omitempty" jsonschema_description:"Share under the weighted strategy." jsonschema:"minimum=1,maximum=10000,default=1,example=3"`
}

// A Team is a group of clients that share limits.
type Team struct {
	Weight   int      `yaml:"weight,omitempty" jsonschema_description:"Share of a contended upstream, relative to other teams." jsonschema:"minimum=1,maximum=10000,default=1,example=3"`
	Class    string   `yaml:"class,omitempty" jsonschema_description:"Priority class of the team's requests. A request may lower its own by the header x-penstock-class." jsonschema:"enum=interactive,enum=default,enum=batch,default=default"`
	Limits   Limits   `yaml:"limits,omitempty" jsonschema_description:"The team's own limits. Rates refuse with 429 unless on_limit says wait; concurrency waits."`
	Models   []string `yaml:"models,omitempty" jsonschema_description:"Model names (keys of models) that the team may use; all when absent. A name may end in *." jsonschema:"example=gpt-4o"`
	Output   string   `yaml:"output,omitempty" jsonschema_description:"How much output is reserved on the team's token limits: a moving p90 of what it used before (predicted), or the request's own maximum (strict)." jsonschema:"enum=predicted,enum=strict,default=predicted"`
	Unpriced string   `yaml:"unpriced,omitempty" jsonschema_description:"What happens to a request whose price is not known: refuse it, or allow it and count no cost. By default it is refused where a budget of the team or key applies, and allowed elsewhere." jsonschema:"enum=allow,enum=refuse"`
	Keys     []Key    `yaml:"keys,omitempty" jsonschema_description:"Keys that identify the team. Make one with: penstock keys new."`
}

// A Key identifies a team, and may have limits of its own.
type Key struct {
	Name     string `yaml:"name" jsonschema_description:"Name of the key in logs; never the key itself." jsonschema:"example=prod"`
	Hash     string `yaml:"hash,omitempty" jsonschema_description:"SHA-256 of the key, as printed by: penstock keys hash." jsonschema:"example=sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"`
	Key      Secret `yaml:"key,omitempty" jsonschema_description:"The key itself, from the environment or a file, in place of its hash." jsonschema:"example=${SEARCH_TEAM_KEY}"`
	Limits   Limits `yaml:"limits,omitempty" jsonschema_description:"Limits of this key, within those of its team."`
	Expires  string `yaml:"expires,omitempty" jsonschema_description:"Date, or date and time in RFC 3339, after which the key is refused." jsonschema:"example=2027-01-01"`
	Disabled bool   `yaml:"disabled,omitempty" jsonschema_description:"Refuse the key." jsonschema:"default=false"`
}

// Limits are what a team, key, upstream, model or the gateway may use. Each rate
// may have several windows at once.
type Limits struct {
	Concurrency  *Slots  `yaml:"concurrency,omitempty" jsonschema_description:"Requests in flight at once." jsonschema:"example=20"`
	Requests     Rates   `yaml:"requests,omitempty" jsonschema_description:"Requests per time." jsonschema:"example=500/min"`
	Tokens       Rates   `yaml:"tokens,omitempty" jsonschema_description:"Input and output tokens per time." jsonschema:"example=2M/min"`
	InputTokens  Rates   `yaml:"input_tokens,omitempty" jsonschema_description:"Input tokens per time." jsonschema:"example=1M/min"`
	OutputTokens Rates   `yaml:"output_tokens,omitempty" jsonschema_description:"Output tokens per time." jsonschema:"example=200k/min"`
	Budget       Budgets `yaml:"budget,omitempty" jsonschema_description:"Money per time, of teams and keys. What a request may cost is taken from it before the request is sent; when it is spent, requests are refused until the next window begins." jsonschema:"example=$100/month"`
}

// A Budget is an amount of money per window. In the file it may be text such as
// $100/month or $100/30d.
type Budget struct {
	Limit       Money  `yaml:"limit" jsonschema_description:"US dollars per window." jsonschema:"example=$100"`
	Per         Period `yaml:"per" jsonschema_description:"The windows: calendar months, weeks from Monday, days, or spans of so many days (30d), which are counted from 1970-01-05; all in UTC." jsonschema:"example=month"`
	Mode        string `yaml:"mode,omitempty" jsonschema_description:"Enforce the budget, or only count what it would have refused (shadow)." jsonschema:"enum=enforce,enum=shadow,default=enforce"`
	OnStoreLoss string `yaml:"on_store_loss,omitempty" jsonschema_description:"What holds while Redis is away: divide, open or closed; that of redis when absent." jsonschema:"enum=divide,enum=open,enum=closed"`
}

// Budgets are the budgets of one owner. In the file a single one may stand in place
// of the list.
type Budgets []Budget

// Slots is a concurrency limit. In the file it may be a bare number.
type Slots struct {
	Limit       int64  `yaml:"limit" jsonschema_description:"Requests in flight at once." jsonschema:"minimum=1,maximum=1000000,example=20"`
	OnLimit     string `yaml:"on_limit,omitempty" jsonschema_description:"Wait in the queue, or refuse with 429." jsonschema:"enum=wait,enum=refuse,default=wait"`
	Mode        string `yaml:"mode,omitempty" jsonschema_description:"Enforce the limit, or only count what it would have refused (shadow)." jsonschema:"enum=enforce,enum=shadow,default=enforce"`
	OnStoreLoss string `yaml:"on_store_loss,omitempty" jsonschema_description:"What holds while Redis is away: divide, open or closed; that of redis when absent." jsonschema:"enum=divide,enum=open,enum=closed"`
}

// A Rate is an amount per window. In the file it may be text such as 500/min,
// 2M/min, 10/s or 1000M/day.
type Rate struct {
	Limit       Amount   `yaml:"limit" jsonschema_description:"Amount per window." jsonschema:"example=2M"`
	Per         Duration `yaml:"per" jsonschema_description:"Length of the window." jsonschema:"example=1m"`
	Burst       Amount   `yaml:"burst,omitempty" jsonschema_description:"Most that may be used at once. By default one window's worth, or an hour's worth where the window is longer than an hour." jsonschema:"example=500"`
	OnLimit     string   `yaml:"on_limit,omitempty" jsonschema_description:"Wait in the queue, or refuse with 429 and a Retry-After. Upstream limits always wait; those of teams and keys refuse by default." jsonschema:"enum=wait,enum=refuse"`
	Mode        string   `yaml:"mode,omitempty" jsonschema_description:"Enforce the limit, or only count what it would have refused (shadow)." jsonschema:"enum=enforce,enum=shadow,default=enforce"`
	OnStoreLoss string   `yaml:"on_store_loss,omitempty" jsonschema_description:"What holds while Redis is away: divide, open or closed; that of redis when absent." jsonschema:"enum=divide,enum=open,enum=closed"`
}

// Rates are the windows of one dimension. In the file a single rate may stand in
// place of the list.
type Rates []Rate

// Gateway limits the whole process.
type Gateway struct {
	Concurrency    int64    `yaml:"concurrency,omitempty" jsonschema_description:"Requests in flight at once over all upstreams; 0 for no limit." jsonschema:"minimum=0,default=0"`
	MaxBody        Size     `yaml:"max_body,omitempty" jsonschema_description:"Largest JSON body accepted. A file or picture of 45 MB is 60 MB in base64." jsonschema:"default=64MiB"`
	MaxUpload      Size     `yaml:"max_upload,omitempty" jsonschema_description:"Largest upload (multipart or other non-JSON body) accepted." jsonschema:"default=1GiB"`
	MaxReplayBytes Size     `yaml:"max_replay_bytes,omitempty" jsonschema_description:"Largest body held in memory so that it can be sent again; larger uploads stream through and are tried once." jsonschema:"default=32MiB"`
	MaxMemory      Size     `yaml:"max_memory,omitempty" jsonschema_description:"Bytes of request and answer bodies held in memory at once, over all requests; beyond it new ones get 503. Never more than three eighths of the process's memory limit (GOMEMLIMIT, or nine tenths of the container's)." jsonschema:"default=512MiB"`
	MaxOutput      Amount   `yaml:"max_output,omitempty" jsonschema_description:"Largest max_tokens, max_completion_tokens or max_output_tokens accepted." jsonschema:"default=10M"`
	MaxChoices     int64    `yaml:"max_choices,omitempty" jsonschema_description:"Largest n or best_of accepted." jsonschema:"minimum=1,default=128"`
	ReadTimeout    Duration `yaml:"read_timeout,omitempty" jsonschema_description:"Longest pause while a client sends the body of its request. 0 for no limit but timeouts.total." jsonschema:"minimum=0,default=60s"`
	MaxConnections int64    `yaml:"max_connections,omitempty" jsonschema_description:"Client connections open at once; 0 for just under half of the file descriptors that the process may open." jsonschema:"minimum=0,default=0"`
}

// Queue configures the fair queue.
type Queue struct {
	MaxWait      ClassDurations `yaml:"max_wait,omitempty" jsonschema_description:"Longest wait by priority class. A request whose predicted wait is longer is refused at once with a Retry-After."`
	Ceiling      ClassPercents  `yaml:"ceiling,omitempty" jsonschema_description:"How far each class may fill an upstream while a higher class is using it, in percent; the rest is kept free for the higher class."`
	MaxPerTeam   int64          `yaml:"max_per_team,omitempty" jsonschema_description:"Requests of one team that may wait for one upstream. One key of it may take nine tenths of these places." jsonschema:"minimum=1,default=5000"`
	MaxTotal     int64          `yaml:"max_total,omitempty" jsonschema_description:"Requests that may wait for one upstream." jsonschema:"minimum=1,default=20000"`
	MaxTeamBytes Size           `yaml:"max_team_bytes,omitempty" jsonschema_description:"Bytes of bodies of one team's requests that wait for one upstream. One key of it may take nine tenths of them." jsonschema:"default=128MiB"`
	MaxBytes     Size           `yaml:"max_bytes,omitempty" jsonschema_description:"Bytes of bodies of all requests that wait for one upstream." jsonschema:"default=384MiB"`
	Keepalive    *Duration      `yaml:"keepalive,omitempty" jsonschema_description:"After waiting this long, and then as often, a streaming client gets an SSE comment so that it does not give up. It commits the status 200, so a later error travels in the stream. 0 switches it off." jsonschema:"minimum=0,default=10s"`
}

// ClassDurations is a duration for each priority class.
type ClassDurations struct {
	Interactive Duration `yaml:"interactive,omitempty" jsonschema_description:"For people who wait." jsonschema:"default=10s"`
	Default     Duration `yaml:"default,omitempty" jsonschema_description:"For everything else." jsonschema:"default=60s"`
	Batch       Duration `yaml:"batch,omitempty" jsonschema_description:"For work that can wait." jsonschema:"default=6h"`
}

// ClassPercents is a percentage for each priority class.
type ClassPercents struct {
	Interactive int64 `yaml:"interactive,omitempty" jsonschema_description:"For interactive requests." jsonschema:"minimum=1,maximum=100,default=100"`
	Default     int64 `yaml:"default,omitempty" jsonschema_description:"For default requests." jsonschema:"minimum=1,maximum=100,default=90"`
	Batch       int64 `yaml:"batch,omitempty" jsonschema_description:"For batch requests." jsonschema:"minimum=1,maximum=100,default=70"`
}

// Retry configures attempts.
type Retry struct {
	MaxAttempts   int      `yaml:"max_attempts,omitempty" jsonschema_description:"Attempts in all for one request, the first included; 1 switches retries off." jsonschema:"minimum=1,maximum=10,default=3"`
	BaseDelay     Duration `yaml:"base_delay,omitempty" jsonschema_description:"Upper bound of the first back-off; it doubles each time, and the pause is drawn at random below it." jsonschema:"default=250ms"`
	MaxDelay      Duration `yaml:"max_delay,omitempty" jsonschema_description:"Largest upper bound of the back-off." jsonschema:"default=8s"`
	MaxRetryAfter Duration `yaml:"max_retry_after,omitempty" jsonschema_description:"Longest Retry-After of an upstream that is waited for; a longer one fails over, or goes to the client." jsonschema:"default=20s"`
	Budget        int64    `yaml:"budget,omitempty" jsonschema_description:"Attempts that go to the same upstream again, in percent of its requests over the last 10 s." jsonschema:"minimum=0,maximum=100,default=20"`
	BudgetFloor   int64    `yaml:"budget_floor,omitempty" jsonschema_description:"Such attempts that are allowed in 10 s however few requests there are." jsonschema:"minimum=0,default=10"`
}

// Timeouts are the time limits of one request. In the file, 0 means none where
// that is allowed.
type Timeouts struct {
	Connect    *Duration `yaml:"connect,omitempty" jsonschema_description:"Until the connection to the upstream stands, TLS included." jsonschema:"default=5s"`
	Headers    *Duration `yaml:"headers,omitempty" jsonschema_description:"From the sent request to the answer's headers. An answer that is not streamed takes as long as its whole text. 0 for no limit but total." jsonschema:"minimum=0,default=10m"`
	FirstToken *Duration `yaml:"first_token,omitempty" jsonschema_description:"From the sent request to the first event of a stream. 0 for no limit but total." jsonschema:"minimum=0,default=5m"`
	Idle       *Duration `yaml:"idle,omitempty" jsonschema_description:"Longest silence between two reads of an answer. 0 for no limit but total." jsonschema:"minimum=0,default=5m"`
	Total      *Duration `yaml:"total,omitempty" jsonschema_description:"From the arrival of the request to the end of the answer, queue and all attempts included." jsonschema:"default=30m"`
	Attempts   *Duration `yaml:"attempts,omitempty" jsonschema_description:"From the arrival of the request to the start of its answer, queue and all attempts included; the client's own time limit (x-stainless-timeout) where that is shorter. 0 for no limit but total." jsonschema:"minimum=0,default=10m"`
	Session    *Duration `yaml:"session,omitempty" jsonschema_description:"Longest life of a WebSocket, which the other limits on an answer do not hold for." jsonschema:"default=2h"`
}

// Breaker configures circuit breakers.
type Breaker struct {
	Disabled    bool     `yaml:"disabled,omitempty" jsonschema_description:"Switch circuit breakers off." jsonschema:"default=false"`
	Consecutive int64    `yaml:"consecutive,omitempty" jsonschema_description:"Health failures in a row that open it." jsonschema:"minimum=1,default=5"`
	Ratio       int64    `yaml:"ratio,omitempty" jsonschema_description:"Health failures, in percent of the requests within the window, that open it." jsonschema:"minimum=1,maximum=100,default=50"`
	MinRequests int64    `yaml:"min_requests,omitempty" jsonschema_description:"Requests within the window below which the ratio says nothing." jsonschema:"minimum=1,default=20"`
	Window      Duration `yaml:"window,omitempty" jsonschema_description:"Window of the ratio." jsonschema:"default=60s"`
	Open        Duration `yaml:"open,omitempty" jsonschema_description:"How long it stays open before a probe; doubles each time the probe fails." jsonschema:"default=30s"`
	MaxOpen     Duration `yaml:"max_open,omitempty" jsonschema_description:"Longest time it stays open." jsonschema:"default=300s"`
	Probes      int64    `yaml:"probes,omitempty" jsonschema_description:"Requests let through at once to probe." jsonschema:"minimum=1,default=1"`
	OnOpen      string   `yaml:"on_open,omitempty" jsonschema_description:"When every upstream of a route is open: refuse with 503 at once, or wait for the first probe if the request's time limit allows." jsonschema:"enum=refuse,enum=wait,default=refuse"`
}

// Tokens configures estimates.
type Tokens struct {
	BytesPerToken float64 `yaml:"bytes_per_token,omitempty" jsonschema_description:"Bytes of text for one input token, before the correction learned for each model." jsonschema:"default=4"`
	Image         int64   `yaml:"image,omitempty" jsonschema_description:"Input tokens for one image part." jsonschema:"minimum=0,maximum=1000000,default=765"`
	Audio         int64   `yaml:"audio,omitempty" jsonschema_description:"Input tokens for one audio part." jsonschema:"minimum=0,maximum=1000000,default=500"`
	File          int64   `yaml:"file,omitempty" jsonschema_description:"Input tokens for one file part." jsonschema:"minimum=0,maximum=1000000,default=2000"`
	FirstOutput   int64   `yaml:"first_output,omitempty" jsonschema_description:"Predicted output of a team and model that nothing is known of yet." jsonschema:"minimum=1,maximum=1000000,default=1024"`
}

// Relay configures how answers go to the client.
type Relay struct {
	OnDisconnect string   `yaml:"on_disconnect,omitempty" jsonschema_description:"When the client leaves: cancel the upstream at once, or drain, which reads a stream on to learn its true usage. What has not begun to answer is cancelled either way." jsonschema:"enum=cancel,enum=drain,default=cancel"`
	DrainFor     Duration `yaml:"drain_for,omitempty" jsonschema_description:"How long a drain reads on." jsonschema:"default=30s"`
	MaxAnswer    Size     `yaml:"max_answer,omitempty" jsonschema_description:"Answers up to this size are held back until they are whole, so that one cut short can be tried again; larger ones are passed on as they come." jsonschema:"default=256KiB"`
	WriteTimeout Duration `yaml:"write_timeout,omitempty" jsonschema_description:"How long one write to a client that does not read may take." jsonschema:"default=60s"`
}

// Explain configures explanations of single requests.
type Explain struct {
	Requests int64 `yaml:"requests,omitempty" jsonschema_description:"Finished requests that GET /admin/explain/{request id} remembers: this many that went well at once, and as many others. 0 switches it off. A request takes about 2 KiB." jsonschema:"minimum=0,maximum=100000,default=1000"`
	Header   bool  `yaml:"header,omitempty" jsonschema_description:"Explain a request to its client, in the header x-penstock-explain, where the client asks for it by sending x-penstock-explain: 1. It tells names and levels of limits, and names of upstreams." jsonschema:"default=false"`
}

// Drain configures shutdown.
type Drain struct {
	Delay Duration `yaml:"delay,omitempty" jsonschema_description:"Pause between failing readiness and closing the listener, for load balancers to notice." jsonschema:"minimum=0,default=0s"`
	Limit Duration `yaml:"limit,omitempty" jsonschema_description:"Longest time that running requests get to finish." jsonschema:"default=60s"`
}

// Database configures durable state.
type Database struct {
	URL Secret `yaml:"url,omitempty" jsonschema_description:"Path of an SQLite file, which is made when it is missing, or the URL of a PostgreSQL database that several gateways share: postgres://user:password@host:5432/name. A change takes effect at the next start." jsonschema:"example=/var/lib/penstock/penstock.db"`
}

// Usage configures the usage ledger.
type Usage struct {
	Disabled  bool     `yaml:"disabled,omitempty" jsonschema_description:"Keep no ledger although there is a database." jsonschema:"default=false"`
	Retention Duration `yaml:"retention,omitempty" jsonschema_description:"How long rows are kept. Their sums by day are kept for 400 days, or as long as the rows where that is longer." jsonschema:"default=90d"`
	Flush     Duration `yaml:"flush,omitempty" jsonschema_description:"Longest time that a row waits to be written, at most 1s. A crash loses no more than this." jsonschema:"default=500ms"`
	Buffer    int64    `yaml:"buffer,omitempty" jsonschema_description:"Rows held in memory while the database cannot be written; beyond it rows are dropped and counted." jsonschema:"minimum=100,maximum=10000000,default=50000"`
}

// Price is what a model costs under some conditions. In the file a bare number is
// the price of input.
type Price struct {
	Input     Money    `yaml:"input,omitempty" jsonschema_description:"A million input tokens." jsonschema:"example=2.50"`
	Output    Money    `yaml:"output,omitempty" jsonschema_description:"A million output tokens, those of reasoning included where they have no price of their own." jsonschema:"example=10"`
	Reasoning *Money   `yaml:"reasoning,omitempty" jsonschema_description:"A million output tokens of reasoning; like other output when absent." jsonschema:"example=15"`
	Cached    *Money   `yaml:"cached,omitempty" jsonschema_description:"A million input tokens read from the provider's cache; like other input when absent." jsonschema:"example=0.25"`
	Write     *Money   `yaml:"write,omitempty" jsonschema_description:"A million input tokens written to the provider's cache; like other input when absent." jsonschema:"example=3.125"`
	Request   Money    `yaml:"request,omitempty" jsonschema_description:"Each request, as for images." jsonschema:"example=0.04"`
	From      string   `yaml:"from,omitempty" jsonschema_description:"First day in UTC on which this price holds." jsonschema:"example=2027-01-01"`
	Above     Amount   `yaml:"above,omitempty" jsonschema_description:"Holds for requests with more input tokens than this, for all of their tokens." jsonschema:"example=200k"`
	Hours     []string `yaml:"hours,omitempty" jsonschema_description:"Holds within these hours in UTC." jsonschema:"example=01:00-04:00"`
	Weekdays  bool     `yaml:"weekdays,omitempty" jsonschema_description:"Holds from Monday to Friday in UTC." jsonschema:"default=false"`
}

// Prices are the prices of a model. Of the entries that apply to a request the last
// one counts. In the file a single one may stand in place of the list.
type Prices []Price
