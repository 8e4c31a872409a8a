package redisstore_test

import (
	"testing"
	"time"

	"penstock/limits/redisstore"
	"penstock/limits/redisstore/redistest"
)

func TestAnnouncementsReachTheOthers(t *testing.T) {
	server := redisstore.Server{Addresses: []string{redistest.Start(t).Addr}}
	mine := prefix()
	a, b := open(t, server, redisstore.Options{Prefix: mine}), open(t, server, redisstore.Options{Prefix: mine})
	stranger := open(t, server, redisstore.Options{Prefix: prefix()})
	deadline := time.After(10 * time.Second)
	for heard := false; !heard; { // until they listen
		if err := a.Announce(t.Context()); err != nil {
			t.Fatal(err)
		}
		select {
		case <-b.Heard():
			heard = true
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			t.Fatal("the other replica hears nothing")
		}
	}
	select {
	case <-a.Heard():
		t.Error("it hears itself")
	case <-stranger.Heard():
		t.Error("another fleet hears it")
	default:
	}
}
