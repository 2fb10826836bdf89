package clerkinvite

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// Types of the events that [Service.HandleEvent] acts upon. Every other type is
// acknowledged and ignored.
const (
	EventUserCreated = "user.created"
	EventUserUpdated = "user.updated"
	EventUserDeleted = "user.deleted"
)

// ErrBadEvent says that a webhook is correctly signed, but that its event is not of
// the form that Clerk documents. HTTP 400.
//
// A repetition brings the same event, so a handler does best to log it and to
// answer with 204 all the same, as [Service.WebhookHandler] does: Svix repeats
// whatever is answered otherwise, and in the end switches off an endpoint that only
// fails. Nothing is lost, since Reconcile asks Clerk what events did not say.
var ErrBadEvent error = &statusError{http.StatusBadRequest, "the webhook's event cannot be read"}

const (
	// webhookTolerance is how far a webhook's time may be from ours, either way.
	// It is that of Svix's own libraries.
	webhookTolerance = 5 * time.Minute

	// minWebhookKey is the length of the keys that Svix generates, the shortest that
	// Standard Webhooks allows.
	minWebhookKey = 24

	// maxSignatures bounds the header svix-signature: a dozen keys that rotate, each
	// with a v1 and a v1a signature, need less than half of it.
	maxSignatures = 4096

	// v1Length is the length of a v1 signature: SHA-256 in base64.
	v1Length = len("v1,") + 44

	// maxWebhookBody bounds a request's body. A user object is a few KiB, of which
	// metadata are at most 24.
	maxWebhookBody = 256 << 10
)

// token is a text of 1 to 255 bytes, and which bytes those may be.
type token string

const (
	digits  = "0123456789"
	letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

	// A message id holds no dot: with one, the bytes that are signed, "id.timestamp.body",
	// could be read in two ways.
	messageID = token(letters + digits + "_-")
	eventType = token(letters + digits + "_.-")
	clerkID   = token(letters + digits + "_-")
)

// MatchString does what the expression ^[…]{1,255}$ would, for less than it costs.
func (t token) MatchString(s string) bool {
	return s != "" && len(s) <= 255 && strings.TrimLeft(s, string(t)) == ""
}

// WebhookConfig is what [NewWebhookVerifier] needs. It prints and logs without the secrets.
type WebhookConfig struct {
	// Secrets are the signing secrets of the endpoint, as Clerk's dashboard shows
	// them: "whsec_" and base64 (the prefix may be missing). One is the rule; name
	// the old and the new one while rotating. A webhook signed with any of them is
	// accepted. Required.
	Secrets []Secret

	// InstanceID is the Clerk instance (ins_…) that events must come from.
	// Defaults to any that knows a secret.
	InstanceID string

	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

// WebhookVerifier tells Clerk's webhooks from everybody else's. It is safe for
// concurrent use, and prints and logs without its keys. The zero value refuses
// every webhook; [NewWebhookVerifier] makes a useful one.
type WebhookVerifier struct {
	// A func for each secret: what fmt finds by reflection in a host's struct that
	// holds a verifier, and no Format method can prevent, is then no key.
	keys       []func(payload []byte, h http.Header) error
	instanceID string
	now        func() time.Time
}

// NewWebhookVerifier checks all of cfg and returns a verifier, or an error that joins the faults:
// no secret, one that is not of the form whsec_ and base64, or one of less than 24 bytes.
// No fault repeats a secret. Later changes of cfg do not change the verifier.
func NewWebhookVerifier(cfg WebhookConfig) (*WebhookVerifier, error) {
	v := &WebhookVerifier{instanceID: cfg.InstanceID, now: cfg.Now}
	if v.now == nil {
		v.now = time.Now //nolint:forbidigo // the default of WebhookConfig.Now
	}
	var faults []error
	if len(cfg.Secrets) == 0 {
		faults = append(faults, errors.New("clerkinvite: WebhookConfig.Secrets is empty; "+
			"set the signing secret (whsec_…) that Clerk's dashboard shows for the webhook endpoint"))
	}
	for i, secret := range cfg.Secrets {
		key, err := newWebhookKey(secret.Reveal())
		if err != nil {
			faults = append(faults, fmt.Errorf("clerkinvite: WebhookConfig.Secrets[%d] %w", i, err))
			continue
		}
		v.keys = append(v.keys, key.VerifyIgnoringTimestamp)
	}
	if cfg.InstanceID != "" && !clerkID.MatchString(cfg.InstanceID) {
		faults = append(faults, errors.New("clerkinvite: WebhookConfig.InstanceID is no instance id (ins_…); no event could match it"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return v, nil
}

// newWebhookKey decodes one secret. The webhook library would take an empty key,
// which everybody knows, so what is a key is decided here.
func newWebhookKey(secret string) (*standardwebhooks.Webhook, error) {
	if secret == "" {
		return nil, errors.New("is empty")
	}
	if strings.ContainsFunc(secret, unicode.IsSpace) {
		return nil, errors.New("has white space in or around it, often the line break at the end of a file")
	}
	// Padding may be missing: it is what gets lost when a secret is copied.
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimPrefix(secret, "whsec_"), "="))
	switch {
	case err != nil: // its text would tell a part of the secret
		return nil, errors.New(`is not "whsec_" followed by base64`)
	case len(key) < minWebhookKey:
		return nil, fmt.Errorf("holds a key of %d bytes; at least %d are needed", len(key), minWebhookKey)
	}
	return standardwebhooks.NewWebhookRaw(key)
}

// Verify returns the event in payload if h signs it with one of the secrets, at most
// five minutes ago or ahead. payload is the request's body as it was received; it is
// not parsed before the signature is found to be good.
//
// Only the headers svix-id, svix-timestamp and svix-signature count, as with Clerk's
// own libraries, and each must be there once.
//
// The error is [ErrBadSignature] if the webhook is not known to be Clerk's, or of
// another instance, and [ErrBadEvent] if it is Clerk's and cannot be read. The text
// of either gives the reason and nothing of the payload; it is for the log, while
// [HTTPError] gives what may be answered.
//
// The same webhook can come more than once, and late: an event says that something
// happened, not how things are now.
func (v *WebhookVerifier) Verify(payload []byte, h http.Header) (*Event, error) {
	id, err := v.verifySignature(payload, h)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	ev, err := ParseEvent(payload)
	if err != nil {
		return nil, err
	}
	if v.instanceID != "" && ev.InstanceID != v.instanceID {
		return nil, fmt.Errorf("%w: the event is of another Clerk instance", ErrBadSignature)
	}
	ev.ID = id
	return ev, nil
}

// verifySignature returns the id of the message, or why the signature is not good.
func (v *WebhookVerifier) verifySignature(payload []byte, h http.Header) (id string, err error) {
	if v == nil || len(v.keys) == 0 {
		return "", errors.New("the verifier was not made by NewWebhookVerifier")
	}
	id, err = onlyHeader(h, "Svix-Id")
	if err != nil {
		return "", err
	}
	timestamp, err := onlyHeader(h, "Svix-Timestamp")
	if err != nil {
		return "", err
	}
	signatures, err := onlyHeader(h, "Svix-Signature")
	if err != nil {
		return "", err
	}

	// What is signed must be what was sent, byte for byte. The webhook library signs
	// the number that it reads, so that it takes "+1" and "01" for "1".
	if !messageID.MatchString(id) {
		return "", errors.New("svix-id is no message id")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || seconds < 1 || seconds >= 1e12 || strconv.FormatInt(seconds, 10) != timestamp {
		return "", errors.New("svix-timestamp is no plain decimal number of seconds")
	}
	switch age := v.now().Sub(time.Unix(seconds, 0)); {
	case age > webhookTolerance:
		return "", fmt.Errorf("svix-timestamp is %v ago; is this machine's clock right?", age.Truncate(time.Second))
	case age < -webhookTolerance:
		return "", fmt.Errorf("svix-timestamp is %v ahead; is this machine's clock right?", -age.Truncate(time.Second))
	}

	if len(signatures) > maxSignatures {
		return "", errors.New("svix-signature is too long")
	}
	// Whatever is not a v1 signature is left out: v1a and versions to come.
	var v1 []string
	for s := range strings.SplitSeq(signatures, " ") {
		if len(s) == v1Length && strings.HasPrefix(s, "v1,") {
			v1 = append(v1, s)
		}
	}
	if len(v1) == 0 {
		return "", errors.New("svix-signature holds no v1 signature")
	}

	mapped := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {timestamp}, "Webhook-Signature": {strings.Join(v1, " ")}}
	for _, verify := range v.keys {
		if verify(payload, mapped) == nil {
			return id, nil
		}
	}
	return "", errors.New("no signature matches; is the secret that of this endpoint?")
}

// onlyHeader returns the value of a header that must be there exactly once. Which of
// two would count depends on who reads them, so two are none. Headers that did not
// come through net/http may be written in any case.
func onlyHeader(h http.Header, name string) (string, error) {
	var values []string
	for key, vs := range h {
		if len(key) == len(name) && http.CanonicalHeaderKey(key) == name {
			values = append(values, vs...)
		}
	}
	if len(values) != 1 {
		return "", fmt.Errorf("%d headers %s instead of one", len(values), strings.ToLower(name))
	}
	return values[0], nil
}

// Event is one of Clerk's webhook events, as far as the library looks at it. It
// prints and logs without addresses.
type Event struct {
	ID         string    // svix-id: the same whenever this event is repeated; empty from ParseEvent
	Type       string    // EventUserCreated, … or any other type
	InstanceID string    // the Clerk instance, ins_…
	Timestamp  time.Time // when it happened; zero if Clerk did not say

	UserID string // of the user whom the user.… event is about; can be empty in user.deleted
	User   *User  // the user at that time, for user.created and user.updated; else nil
}

// ParseEvent reads an event whose signature was verified elsewhere; an event that
// was not verified can be anybody's. An unknown type is no error, its data are not
// looked at. The error is [ErrBadEvent], with a reason that holds nothing of the payload.
func ParseEvent(payload []byte) (*Event, error) {
	ev, err := parseEvent(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadEvent, err)
	}
	return ev, nil
}

func parseEvent(payload []byte) (*Event, error) {
	var envelope jsonObject
	ok := json.Valid(payload)
	if ok {
		envelope, ok = asObject(bytes.TrimSpace(payload))
	}
	if !ok {
		return nil, errors.New("the payload is no JSON object")
	}
	var err error
	ev := &Event{
		Type:       field(envelope, "type", asText, &err),
		InstanceID: field(envelope, "instance_id", asText, &err),
		Timestamp:  timeField(envelope, "timestamp", &err),
	}
	switch {
	case err != nil:
		return nil, err
	case !eventType.MatchString(ev.Type):
		return nil, errors.New("type is missing or no event type")
	case ev.InstanceID != "" && !clerkID.MatchString(ev.InstanceID):
		return nil, errors.New("instance_id is no instance id")
	}

	switch ev.Type {
	case EventUserCreated, EventUserUpdated:
		ev.User = parseUser(field(envelope, "data", asObject, &err), &err)
		ev.UserID = ev.User.ID
	case EventUserDeleted:
		ev.UserID = field(field(envelope, "data", asObject, &err), "id", asText, &err)
		if err == nil && ev.UserID != "" && !clerkID.MatchString(ev.UserID) {
			err = errors.New("data.id is no user id")
		}
	}
	if err != nil {
		return nil, err
	}
	return ev, nil
}

// parseUser reads Clerk's user object. Users may have no address at all, and an
// address no verification. Faults are kept in err, as by field.
func parseUser(data jsonObject, err *error) *User {
	u := &User{
		ID:             field(data, "id", asText, err),
		PrimaryEmailID: field(data, "primary_email_address_id", asText, err),
		Banned:         field(data, "banned", asBool, err),
		CreatedAt:      timeField(data, "created_at", err),
	}
	for _, e := range field(data, "email_addresses", asObjects, err) {
		status := field(field(e, "verification", asObject, err), "status", asText, err)
		u.Emails = append(u.Emails, UserEmail{
			ID:       field(e, "id", asText, err),
			Address:  field(e, "email_address", asText, err),
			Verified: status == "verified" && !field(e, "reserved", asBool, err),
		})
	}
	if *err == nil && !clerkID.MatchString(u.ID) {
		*err = errors.New("data.id is missing or no user id")
	}
	return u
}

// jsonObject holds the members of a JSON object as they are written, each a key and its value.
// To decode into a struct would match keys in any case, and would mix the elements of two arrays
// under a double key, one's address with the other's verification. Here the last one counts.
// To decode each level into a map does the same, and is most of what an event costs.
type jsonObject [][]byte

// field returns what as makes of o[key], or the zero value if it is missing or null. The first
// fault is kept in err, with nothing of the payload. With a fault the value means nothing.
func field[T any](o jsonObject, key string, as func(raw []byte) (T, bool), err *error) (v T) {
	for _, member := range slices.Backward(o) {
		if first := member[1]; first != key[0] && first != '\\' {
			continue // most are told by one byte
		}
		end := stringEnd(member)
		if string(unquote(member[:end])) != key {
			continue
		}
		raw, ok := bytes.TrimLeft(member[end:], ": \t\r\n"), true
		if raw[0] != 'n' { // null
			v, ok = as(raw)
		}
		if !ok && *err == nil {
			*err = errors.New(key + " is of the wrong type")
		}
		break
	}
	return v
}

// The functions as… take one value of valid JSON, without white space around it. They know
// its type by the first byte, and return false if it is not theirs.

func asText(raw []byte) (string, bool) {
	if raw[0] != '"' {
		return "", false
	}
	return string(unquote(raw)), true
}

func asBool(raw []byte) (bool, bool) { return raw[0] == 't', raw[0] == 't' || raw[0] == 'f' }

func asNumber(raw []byte) (float64, bool) {
	n, err := strconv.ParseFloat(string(raw), 64) // it fails for what is no number, or no float64
	return n, err == nil
}

func asObject(raw []byte) (jsonObject, bool) {
	if raw[0] != '{' {
		return nil, raw[0] == 'n' // null, as a payload or in an array
	}
	return splitJSON(raw), true
}

func asObjects(raw []byte) (objects []jsonObject, ok bool) {
	if raw[0] != '[' {
		return nil, false
	}
	for _, element := range splitJSON(raw) {
		o, ok := asObject(element)
		if !ok {
			return nil, false
		}
		objects = append(objects, o)
	}
	return objects, true
}

// splitJSON returns the members of an object or the elements of an array that is valid JSON.
func splitJSON(raw []byte) [][]byte {
	parts := make([][]byte, 0, min(8, len(raw)/8))
	depth, start := 0, 1
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			i += stringEnd(raw[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 1 {
				parts = append(parts, bytes.TrimSpace(raw[start:i]))
				start = i + 1
			}
		}
	}
	if last := bytes.TrimSpace(raw[start : len(raw)-1]); len(last) > 0 {
		parts = append(parts, last)
	}
	return parts
}

// stringEnd returns the length of the JSON string that valid JSON begins with.
func stringEnd(raw []byte) int {
	i := 1
	for ; raw[i] != '"'; i++ {
		if raw[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// unquote returns the text of a JSON string as encoding/json reads it.
func unquote(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) {
		return raw[1 : len(raw)-1]
	}
	var s string
	_ = json.Unmarshal(raw, &s) // it is a string
	return []byte(s)
}

// timeField returns o[key] as a time. Clerk's documents say milliseconds and their
// examples have seconds; no time in milliseconds since March 1973 is below 1e11.
func timeField(o jsonObject, key string, err *error) time.Time {
	n := field(o, key, asNumber, err)
	switch {
	case n == 0:
		return time.Time{}
	case n < 0 || n > 1e15:
		if *err == nil {
			*err = errors.New(key + " is no time")
		}
		return time.Time{}
	case n < 1e11:
		n *= 1000
	}
	return time.UnixMilli(int64(math.Round(n))).UTC()
}

// WebhookHandler returns the endpoint for Clerk's webhooks, to be mounted wherever the
// host likes and subscribed to user.created, user.updated and user.deleted. It panics
// if v is nil, since nothing else is safe to do. Its answers:
//
//   - 204: done, or nothing to do. That includes a signed event which cannot be read:
//     see [ErrBadEvent]; it is logged as an error.
//   - 400: [ErrBadSignature], or a body that ended early. It changes nothing.
//   - 405: not POST. 413: more than 256 KiB.
//   - 500: the store or Clerk failed. Svix tries again, for more than a day; Retry-After
//     tells it when, if Clerk has set a limit.
//
// Failures go to Config.Logger. The host's server sets the time-outs for reading.
func (s *Service) WebhookHandler(v *WebhookVerifier) http.Handler {
	return webhookHandler(v, s.HandleEvent, s.log)
}

// webhookHandler is WebhookHandler without the Service.
func webhookHandler(v *WebhookVerifier, handle func(context.Context, *Event) ([]*Member, error), log *slog.Logger) http.Handler {
	if v == nil {
		panic("clerkinvite: WebhookHandler needs a verifier; see NewWebhookVerifier")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		ctx := r.Context()
		payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWebhookBody))
		if err != nil {
			status, text := http.StatusBadRequest, "the body could not be read"
			var tooLarge *http.MaxBytesError
			if errors.As(err, &tooLarge) {
				status, text = http.StatusRequestEntityTooLarge, "the body is too large"
			}
			log.WarnContext(ctx, "clerkinvite: webhook not read", slog.Any("err", logError(err)))
			http.Error(w, text, status)
			return
		}

		ev, err := v.Verify(payload, r.Header)
		switch {
		case errors.Is(err, ErrBadEvent):
			// Said once and aloud, for no repetition would be better; see ErrBadEvent.
			log.ErrorContext(ctx, "clerkinvite: webhook cannot be read and is ignored",
				slog.String("id", r.Header.Get("Svix-Id")), slog.Any("err", logError(err)))
			w.WriteHeader(http.StatusNoContent)
			return
		case err != nil:
			log.WarnContext(ctx, "clerkinvite: webhook refused", slog.Any("err", logError(err)))
			status, text := HTTPError(err)
			http.Error(w, text, status)
			return
		}

		if _, err := handle(ctx, ev); err != nil {
			log.ErrorContext(ctx, "clerkinvite: webhook failed and will be repeated",
				slog.Any("event", ev), slog.Any("err", logError(err)))
			if wait, ok := RetryAfter(err); ok {
				w.Header().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(wait.Seconds())), 10))
			}
			// Not HTTPError: the client is Svix, which only has to know that it shall try again.
			http.Error(w, "internal server error", http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// HandleEvent applies a verified webhook and returns the members it changed. The
// event is a hint only: if a member waits for one of its verified addresses, or is
// active under a deleted user's id, the user is read again from Clerk, and that
// answer decides. So replays, old events and events out of order change nothing.
// All tenants that wait for the address are resolved. Events of other types, and of
// users nobody waits for, change nothing and are no error.
//
// Errors: *[ClerkInvitationError] when Clerk could not be asked, a store's error as
// it is. After an error the event should be delivered again. HandleEvent is safe for
// concurrent use and for repetition.
func (s *Service) HandleEvent(ctx context.Context, e *Event) (_ []*Member, err error) {
	ctx, seen := s.observe(ctx, "HandleEvent")
	defer seen.done(&err)
	switch {
	case e == nil || e.UserID == "":
		return nil, nil
	case e.Type == EventUserDeleted:
		return s.userDeleted(ctx, e.UserID)
	case e.User == nil || e.Type != EventUserCreated && e.Type != EventUserUpdated:
		return nil, nil
	}
	emails := e.User.verifiedEmails()
	if len(emails) == 0 {
		return nil, nil
	}
	rows, err := s.store.Find(ctx, Query{Emails: emails, UserIDs: []string{e.UserID}})
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(rows, waits) {
		return nil, nil
	}
	u, err := s.readUser(ctx, e.UserID)
	if errors.Is(err, ErrNotFound) {
		return nil, nil // deleted since, or an example
	}
	if err != nil {
		return nil, err
	}
	if now := u.verifiedEmails(); !sameSet(now, emails) {
		return s.resolveUser(ctx, u, s.accepted) // the event is older than the user
	}
	return s.resolve(ctx, u, rows, s.accepted)
}

// userDeleted removes the members that are active under the id of a user who is gone.
func (s *Service) userDeleted(ctx context.Context, id string) ([]*Member, error) {
	var changed []*Member
	for range 10 {
		rows, err := s.store.Find(ctx, Query{UserIDs: []string{id}})
		if err != nil || len(rows) == 0 {
			return changed, err
		}
		if _, err := s.readUser(ctx, id); !errors.Is(err, ErrNotFound) {
			return changed, err
		}
		changes := make([]Change, len(rows))
		for i, row := range rows {
			changes[i] = Change{row, ended(*row, StatusRemoved, ReasonUserDeleted, s.now())}
		}
		results, err := s.apply(ctx, s.store, changes)
		if err != nil {
			return changed, err
		}
		again := false
		for _, r := range results {
			switch {
			case r.Err == nil:
				changed = append(changed, r.Member)
			case errors.Is(r.Err, ErrConflict):
				again = true
			default:
				return changed, r.Err
			}
		}
		if !again {
			return changed, nil
		}
	}
	return changed, fmt.Errorf("clerkinvite: user %s deleted: %w", id, ErrConflict)
}
