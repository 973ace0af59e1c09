package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale"
	"infrado.cloud/headscale-operator/internal/rotation"
)

const day = 24 * time.Hour

// life is that of one key, in time since the first one was made.
type life struct {
	made, replaced, refused, expires time.Duration
}

// world is a Headscale and a Secret, in which decisions are executed.
type world struct {
	start, now time.Time
	settings   rotation.Settings
	tag        rotation.Tag
	record     *rotation.Record
	keys       []rotation.Credential[headscale.APIKey]
	lives      []life
	byPrefix   map[string]int
}

// livesOf are the lives of all keys that are made within a time.
func livesOf(settings rotation.Settings, within time.Duration) []life {
	w := &world{
		start: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), settings: settings,
		tag: rotation.NewTag("default", "headscale-api-key"), byPrefix: map[string]int{},
	}
	for w.now = w.start; w.now.Before(w.start.Add(within)); {
		w.step()
	}
	return w.lives
}

// step has the API Key Manager decide, and does it.
func (w *world) step() {
	decision := rotation.Decide(rotation.View[headscale.APIKey]{
		Now: w.now, Record: w.record, Credentials: w.keys, Rules: apikey.Rules(), Tag: w.tag, Settings: w.settings,
	})
	switch decision.Action {
	case rotation.Create:
		w.mint(decision.Predecessors)
	case rotation.Revoke:
		for _, prefix := range decision.Expire {
			w.expire(prefix)
		}
		w.record = decision.Record
	case rotation.Repair:
		w.record = decision.Record
	default:
		w.now = decision.Next
	}
}

// mint makes a key and stores it in place of others.
func (w *world) mint(predecessors []string) {
	number := len(w.lives)
	key := headscale.NewKey(fmt.Sprintf("hskey-api-%012d-%s", number, strings.Repeat("0", 64)))
	prefix, _ := key.Prefix()
	expiration := w.tag.Expiration(w.now.Add(w.settings.Expiration))
	record := rotation.Record{
		Ours: true, Regular: true, Text: key, ID: prefix, Digest: rotation.DigestOf(key),
		Expiration: expiration, CreatedAt: w.now.Truncate(time.Second),
	}
	for _, old := range predecessors {
		record.Retiring = append(record.Retiring, rotation.RetiringEntry{ID: old, NotBefore: w.now.Add(w.settings.RevocationDelay)})
		w.lives[w.byPrefix[old]].replaced = w.now.Sub(w.start)
	}
	w.record = &record
	w.keys = append(w.keys, rotation.Credential[headscale.APIKey]{ID: prefix, Expiration: expiration, CreatedAt: w.now})
	w.byPrefix[prefix] = number
	w.lives = append(w.lives, life{
		made: w.now.Sub(w.start), replaced: expiration.Sub(w.start), refused: expiration.Sub(w.start), expires: expiration.Sub(w.start),
	})
}

// expire has a key refused. It is taken off the list, which would grow very long.
func (w *world) expire(prefix string) {
	w.lives[w.byPrefix[prefix]].refused = w.now.Sub(w.start)
	w.keys = slices.DeleteFunc(w.keys, func(k rotation.Credential[headscale.APIKey]) bool { return k.ID == prefix })
}
