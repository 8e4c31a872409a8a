package openai

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// errorObject is OpenAI's error envelope. SDKs need every member to be there.
type errorObject struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    string  `json:"code"`
}

// ErrorBody renders an error as OpenAI does: {"error":{…}}. An empty param is
// null.
func ErrorBody(code, kind, message, param string) []byte {
	e := errorObject{Message: message, Type: kind, Code: code}
	if param != "" {
		e.Param = &param
	}
	b, err := json.Marshal(map[string]errorObject{"error": e})
	if err != nil {
		return []byte(`{"error":{"message":"internal error","type":"server_error","param":null,"code":"internal_error"}}`)
	}
	return b
}

// ErrorEvent renders an error within a stream of an operation. On most streams it
// is a data event with a nested error, which every SDK raises. On the Responses
// API it is response.failed, which agents look for, and then an error event that
// is both flat, as documented, and nested, as SDKs raise it. response and sequence
// are the id and last sequence number seen there.
func ErrorEvent(op, code, message, response string, sequence int64) []byte {
	if familyOf(op) != familyResponses {
		return fmt.Appendf(nil, "data: %s\n\n", ErrorBody(code, "server_error", message, ""))
	}
	var b bytes.Buffer
	text, _ := json.Marshal(message)
	if response != "" {
		sequence++
		id, _ := json.Marshal(response)
		fmt.Fprintf(&b, "event: response.failed\ndata: {\"type\":\"response.failed\",\"sequence_number\":%d,\"response\":{\"id\":%s,\"object\":\"response\",\"status\":\"failed\",\"output\":[],\"error\":{\"code\":\"server_error\",\"message\":%s},\"incomplete_details\":null,\"usage\":null}}\n\n", sequence, id, text)
	}
	fmt.Fprintf(&b, "event: error\ndata: {\"type\":\"error\",\"sequence_number\":%d,\"code\":%q,\"message\":%s,\"param\":null,\"error\":{\"type\":\"server_error\",\"code\":%q,\"message\":%s,\"param\":null}}\n\n", sequence+1, code, text, code, text)
	return b.Bytes()
}
