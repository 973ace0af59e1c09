package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"infrado.cloud/headscale-operator/internal/apikey"
	"infrado.cloud/headscale-operator/internal/headscale"
)

const day = 24 * time.Hour

// life is that of one key, in time since the first one was made.
type life struct {
	made, replaced, refused, expires time.Duration
}

// world is a Headscale and a Secret, in which decisions are carried out.
type world struct {
	start, now time.Time
	settings   apikey.Settings
	tag        apikey.Tag
	record     *apikey.Record
	keys       []headscale.APIKey
	lives      []life
	byPrefix   map[string]int
}

// livesOf are the lives of all keys that are made within a time.
func livesOf(settings apikey.Settings, within time.Duration) []life {
	w := &world{
		start: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), settings: settings,
		tag: apikey.NewTag("default", "headscale-api-key"), byPrefix: map[string]int{},
	}
	for w.now = w.start; w.now.Before(w.start.Add(within)); {
		w.step()
	}
	return w.lives
}

// step has the API Key Manager decide, and does it.
func (w *world) step() {
	decision := apikey.Decide(apikey.View{
		Now: w.now, Record: w.record, Regular: true, Keys: w.keys, Tag: w.tag, Settings: w.settings,
	})
	switch decision.Action {
	case apikey.Mint:
		w.mint(decision.Predecessors)
	case apikey.Settle:
		for _, prefix := range decision.Expire {
			w.expire(prefix)
		}
		w.record = decision.Record
	case apikey.Repair:
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
	digest := sha256.Sum256([]byte(key.Reveal()))
	expiration := w.tag.Expiration(w.now.Add(w.settings.Expiration))
	record := apikey.Record{
		Ours: true, Key: key, Prefix: prefix, Digest: hex.EncodeToString(digest[:]),
		Expiration: expiration, CreatedAt: w.now.Truncate(time.Second),
	}
	for _, old := range predecessors {
		record.Retiring = append(record.Retiring, apikey.RetiringKey{Prefix: old, NotBefore: w.now.Add(w.settings.RevocationDelay)})
		w.lives[w.byPrefix[old]].replaced = w.now.Sub(w.start)
	}
	w.record = &record
	w.keys = append(w.keys, headscale.APIKey{Prefix: prefix, Expiration: expiration, CreatedAt: w.now})
	w.byPrefix[prefix] = number
	w.lives = append(w.lives, life{
		made: w.now.Sub(w.start), replaced: expiration.Sub(w.start), refused: expiration.Sub(w.start), expires: expiration.Sub(w.start),
	})
}

// expire has a key refused. It is taken off the list, which would grow very long.
func (w *world) expire(prefix string) {
	w.lives[w.byPrefix[prefix]].refused = w.now.Sub(w.start)
	w.keys = slices.DeleteFunc(w.keys, func(k headscale.APIKey) bool { return k.Prefix == prefix })
}
