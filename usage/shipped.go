package usage

import (
	"bytes"
	_ "embed" // for prices.json
	"encoding/json"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed prices.json
var shippedJSON []byte

// shipped are the prices that come with the program. The file is tested.
var shipped = sync.OnceValue(func() table {
	models, _, err := parsePrices(shippedJSON)
	if err != nil {
		panic("usage: prices.json: " + err.Error())
	}
	return newTable(models)
})

// Date is the day on which the prices that come with the program were collected.
func Date() string {
	_, date, _ := parsePrices(shippedJSON)
	return date
}

// priceFile is the form of prices.json. Prices are in US dollars per million
// tokens.
type priceFile struct {
	Date   string                `json:"date"`
	About  string                `json:"about"`
	Models map[string][]rateJSON `json:"models"`
}

type rateJSON struct {
	From      string       `json:"from"`
	Above     int64        `json:"above"`
	Hours     []string     `json:"hours"`
	Weekdays  bool         `json:"weekdays"`
	Input     json.Number  `json:"input"`
	Cached    *json.Number `json:"cached"`
	Write     *json.Number `json:"write"`
	Output    json.Number  `json:"output"`
	Reasoning *json.Number `json:"reasoning"`
}

func parsePrices(data []byte) (models map[string]Model, date string, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var f priceFile
	if err := d.Decode(&f); err != nil {
		return nil, "", err
	}
	models = make(map[string]Model, len(f.Models))
	for name, rates := range f.Models {
		for _, j := range rates {
			r, err := j.rate()
			if err != nil {
				return nil, "", fmt.Errorf("%s: %w", name, err)
			}
			models[name] = append(models[name], r)
		}
	}
	return models, f.Date, nil
}

func (j *rateJSON) rate() (r Rate, err error) {
	r.Above, r.Weekdays = j.Above, j.Weekdays
	if r.Input, err = micro(j.Input); err != nil {
		return r, fmt.Errorf("input: %w", err)
	}
	if r.Output, err = micro(j.Output); err != nil {
		return r, fmt.Errorf("output: %w", err)
	}
	r.Cached, r.Write, r.Reasoning = r.Input, r.Input, r.Output
	if j.Cached != nil {
		if r.Cached, err = micro(*j.Cached); err != nil {
			return r, fmt.Errorf("cached: %w", err)
		}
	}
	if j.Write != nil {
		if r.Write, err = micro(*j.Write); err != nil {
			return r, fmt.Errorf("write: %w", err)
		}
	}
	if j.Reasoning != nil {
		if r.Reasoning, err = micro(*j.Reasoning); err != nil {
			return r, fmt.Errorf("reasoning: %w", err)
		}
	}
	if j.From != "" {
		if r.From, err = time.Parse(time.DateOnly, j.From); err != nil {
			return r, err
		}
	}
	for _, text := range j.Hours {
		h, ok := ParseHours(text)
		if !ok {
			return r, fmt.Errorf("hours: %q is not of the form 01:00-04:00", text)
		}
		r.Hours = append(r.Hours, h)
	}
	return r, nil
}

// micro reads a decimal number of dollars as whole millionths.
func micro(n json.Number) (int64, error) {
	v, ok := new(big.Rat).SetString(string(n))
	if !ok {
		return 0, fmt.Errorf("%q is not a number", n)
	}
	v.Mul(v, big.NewRat(1e6, 1))
	if !v.IsInt() || v.Sign() < 0 || !v.Num().IsInt64() {
		return 0, fmt.Errorf("%s is not a price in millionths of a dollar", n)
	}
	return v.Num().Int64(), nil
}

// ParseHours reads a time of day such as 01:00-04:00. It may end at 24:00.
func ParseHours(text string) (Hours, bool) {
	start, end, _ := strings.Cut(text, "-")
	s, ok1 := minutes(start)
	e, ok2 := minutes(end)
	return Hours{s, e}, ok1 && ok2 && s < e
}

func minutes(text string) (int, bool) {
	if len(text) != len("00:00") || !matches(text, "dd:dd") {
		return 0, false
	}
	h, _ := strconv.Atoi(text[:2])
	m, _ := strconv.Atoi(text[3:])
	return h*60 + m, m < 60 && h*60+m <= 24*60
}
