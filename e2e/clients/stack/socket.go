package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/coder/websocket"
)

// maxMessage bounds one message of a WebSocket, in bytes.
const maxMessage = 8 << 20

// socket opens a WebSocket as realtime and responses do. It answers response.create
// with the events of a short answer, "close" with a close of the code 4000, and
// sends back every other message.
func socket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{"realtime"}, InsecureSkipVerify: true, CompressionMode: websocket.CompressionContextTakeover,
	})
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxMessage)
	realtime := strings.HasSuffix(r.URL.Path, "/realtime")
	if realtime {
		session, _ := json.Marshal(map[string]any{"type": "realtime", "model": r.URL.Query().Get("model")}) // always encodes
		if tell(r.Context(), conn, fmt.Sprintf(`{"type":"session.created","event_id":"event_1","session":%s}`, session)) != nil {
			return
		}
	}
	for {
		kind, data, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		var event struct{ Type string }
		if json.Unmarshal(data, &event) == nil && event.Type == "close" {
			_ = conn.Close(4000, "asked to")
			return
		}
		if event.Type != "response.create" {
			if conn.Write(r.Context(), kind, data) != nil {
				return
			}
			continue
		}
		for _, e := range answerEvents(realtime) {
			if tell(r.Context(), conn, e) != nil {
				return
			}
		}
	}
}

func answerEvents(realtime bool) []string {
	out := []string{`{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","status":"in_progress","output":[]}}`}
	for i, text := range []string{"the", " river"} {
		out = append(out, fmt.Sprintf(`{"type":"response.output_text.delta","sequence_number":%d,"item_id":"i_1","output_index":0,"content_index":0,"delta":%q}`, i+1, text))
	}
	last := "response.completed"
	if realtime {
		last = "response.done"
	}
	return append(out, fmt.Sprintf(`{"type":%q,"sequence_number":3,"response":{"id":"resp_1","object":"response","status":"completed","output":[]}}`, last))
}

func tell(ctx context.Context, conn *websocket.Conn, event string) error {
	return conn.Write(ctx, websocket.MessageText, []byte(event))
}
