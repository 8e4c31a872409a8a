package sse

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

type got struct {
	name, data string
	has        bool
	end        int
}

func split(stream string, sizes ...int) []got {
	var s Splitter
	var out []got
	base := 0
	for rest := []byte(stream); len(rest) > 0; {
		n := len(rest)
		if len(sizes) > 0 {
			n = min(n, max(1, sizes[0]))
			sizes = append(sizes[1:], sizes[0])
		}
		piece := bytes.Clone(rest[:n])
		s.Feed(piece, func(e *Event, end int) {
			out = append(out, got{e.Name, string(e.Data), e.HasData, base + end})
		})
		clear(piece) // nothing may be kept of it
		base += n
		rest = rest[n:]
	}
	return out
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		stream string
		want   []got
	}{
		{"data: a\n\n", []got{{"", "a", true, 9}}},
		{"data:a\r\n\r\ndata: b\r\n\r\n", []got{{"", "a", true, 10}, {"", "b", true, 21}}},
		{"event: x\ndata: {}\n\n", []got{{"x", "{}", true, 19}}},
		{"data: a\ndata: b\ndata:\n\n", []got{{"", "a\nb\n", true, 23}}},
		{": ping\n\ndata: a\n\n", []got{{"", "", false, 8}, {"", "a", true, 17}}},
		{"\n\n\ndata: a\n\n", []got{{"", "a", true, 12}}},
		{"data:\n\n", []got{{"", "", true, 7}}},
		{"data: never ended", nil},
		{"id: 1\nretry: 5\nfoo\ndata: a\n\n", []got{{"", "a", true, 28}}},
	} {
		if g := split(c.stream); !reflect.DeepEqual(g, c.want) {
			t.Errorf("%q: got %v, want %v", c.stream, g, c.want)
		}
	}
}

func TestLongEventsAreBounded(t *testing.T) {
	var s Splitter
	var events []Event
	feed := func(b string) {
		s.Feed([]byte(b), func(e *Event, _ int) {
			events = append(events, Event{Data: bytes.Clone(e.Data[:10]), Truncated: e.Truncated})
		})
	}
	feed("data: 0123456789")
	for range 100 {
		feed(strings.Repeat("x", 100_000))
	}
	if len(s.line) > MaxEvent {
		t.Errorf("%d bytes kept", len(s.line))
	}
	feed("\n\ndata: 0123456789\n\n")
	want := []Event{{Data: []byte("0123456789"), Truncated: true}, {Data: []byte("0123456789")}}
	if !reflect.DeepEqual(events, want) {
		t.Errorf("got %v", events)
	}
}

// Where the pieces end must not change the events.
func FuzzSplit(f *testing.F) {
	f.Add("data: {\"a\":1}\n\nevent: x\ndata: y\ndata: z\n\n: c\n\ndata: [DONE]\n\n", 3, 7)
	f.Add("data: a\r\n\r\n\r\ndata:b\r\n\r\n", 1, 1)
	f.Fuzz(func(t *testing.T, stream string, a, b int) {
		whole, pieces := split(stream), split(stream, a%100, b%100)
		if fmt.Sprint(whole) != fmt.Sprint(pieces) {
			t.Errorf("%q: whole %v, in pieces %v", stream, whole, pieces)
		}
	})
}

func BenchmarkSplit(b *testing.B) {
	event := `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1790000000,"model":"gpt-x","choices":[{"index":0,"delta":{"content":"Hi"},"logprobs":null,"finish_reason":null}]}` + "\n\n"
	piece := []byte(strings.Repeat(event, 100))
	var s Splitter
	n := 0
	b.SetBytes(int64(len(piece)))
	b.ReportAllocs()
	for b.Loop() {
		s.Feed(piece, func(*Event, int) { n++ })
	}
}
