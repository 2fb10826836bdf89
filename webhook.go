package clerkinvite

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// ErrBadEvent means that a webhook has a valid signature but an unusable event: the event is not
// a JSON object, or its type or user ID cannot be read. Other invalid fields count as missing.
// HTTP 400.
//
// A retry would deliver the same event, so log it and respond with 204, as
// [Service.WebhookHandler] does. Svix retries after any other response, and disables an
// endpoint that always fails. Nothing is lost, because Reconcile finds changes that no event
// reported.
var ErrBadEvent error = &statusError{http.StatusBadRequest, "the webhook's event cannot be read"}

const (
	// webhookTolerance is the largest difference between a webhook's time and ours, in either
	// direction. Svix's libraries use the same value.
	webhookTolerance = 5 * time.Minute

	// minWebhookKey is the length of Svix's keys, and the minimum of Standard Webhooks.
	minWebhookKey = 24

	// maxSignatures limits the length of the header svix-signature. Twelve keys in rotation,
	// each with a v1 and a v1a signature, need less than half of it.
	maxSignatures = 4096

	// maxWebhookEvent limits the size of an event. A user object has at most 24 KiB of metadata.
	maxWebhookEvent = 256 << 10

	// maxWebhookBody limits the size of a body whose signature is verified. A signed event between
	// the two limits is ignored like an unreadable event, because a retry would have the same size.
	maxWebhookBody = 4 << 20

	// webhookReadTimeout is the time limit for reading a body. Svix uses the same timeout.
	webhookReadTimeout = 15 * time.Second
)

var (
	// clerkID matches Clerk's IDs and Svix's message IDs. They must not contain a dot, because
	// Svix signs "id.time.body", and a dot in the ID would make that ambiguous.
	clerkID = regexp.MustCompile(`^[\w-]{1,255}$`)

	eventType   = regexp.MustCompile(`^[\w.-]{1,255}$`)
	webhookTime = regexp.MustCompile(`^[1-9][0-9]{0,11}$`)
)

// WebhookConfig configures [NewWebhookVerifier].
type WebhookConfig struct {
	// Secrets are the endpoint's signing secrets, as Clerk's dashboard shows them:
	// "whsec_" followed by base64. The prefix is optional. During a rotation, list the old
	// and the new secret; a webhook signed with either is accepted. Required.
	Secrets []Secret

	// InstanceID is the Clerk instance (ins_…) that events must come from.
	// By default, events of any instance are accepted.
	InstanceID string

	// Now is the clock. Defaults to time.Now.
	Now func() time.Time
}

// WebhookVerifier verifies that webhooks come from Clerk. Create it with [NewWebhookVerifier];
// the zero value rejects every webhook. It is safe for concurrent use, and never prints its
// keys.
type WebhookVerifier struct {
	// Each func returns an HMAC with one key. A key inside a func cannot be printed by fmt, even
	// if the verifier is in an unexported field of a host's struct.
	keys       []func() hash.Hash
	instanceID string
	now        func() time.Time
}

// NewWebhookVerifier returns a verifier. Its error joins everything that is wrong with cfg:
// no secret, a secret that is not "whsec_" and base64, a key of less than 24 bytes, an invalid
// InstanceID. The error does not contain the secrets. Later changes to cfg have no effect.
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
		v.keys = append(v.keys, key)
	}
	if cfg.InstanceID != "" && !clerkID.MatchString(cfg.InstanceID) {
		faults = append(faults, errors.New("clerkinvite: WebhookConfig.InstanceID must be an instance ID such as ins_2abc"))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return v, nil
}

// newWebhookKey decodes a secret and returns a func that returns an HMAC with its key.
func newWebhookKey(secret string) (func() hash.Hash, error) {
	if secret == "" {
		return nil, errors.New("is empty")
	}
	if strings.ContainsFunc(secret, unicode.IsSpace) {
		return nil, errors.New("contains white space, often the line break at the end of a file")
	}
	// Padding is optional, because it is easily lost when copying a secret.
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimPrefix(secret, "whsec_"), "="))
	switch {
	case err != nil: // err would reveal a part of the secret
		return nil, errors.New(`must be "whsec_" followed by base64`)
	case len(key) < minWebhookKey:
		return nil, fmt.Errorf("has a key of %d bytes; at least %d are required", len(key), minWebhookKey)
	}
	return func() hash.Hash { return hmac.New(sha256.New, key) }, nil
}

// Verify returns the event in payload if h contains a valid signature by one of the secrets
// and a time within five minutes of now. payload must be the unchanged body of the request. It
// is not parsed until the signature has been verified.
//
// The headers svix-id, svix-timestamp and svix-signature must each occur exactly once, as in
// Clerk's own libraries. A svix-signature that was split at its commas, as adapters for AWS
// Lambda do, is joined again.
//
// A webhook can arrive late and more than once. Its event says what has happened, not what is
// true now.
//
// Errors: [ErrBadSignature] if the signature is invalid or the event is from another instance;
// [ErrBadEvent] if the signature is valid but the event cannot be read, or does not name its
// instance although InstanceID is set. Their texts are for logs. They contain the reason, but
// nothing from the payload. [HTTPError] returns the text for a response. Verify is safe for
// concurrent use and safe to retry.
func (v *WebhookVerifier) Verify(payload []byte, h http.Header) (*Event, error) {
	sig, err := v.signature(h)
	if err != nil {
		return nil, err
	}
	_, _ = sig.Write(payload)
	if err := sig.verify(); err != nil {
		return nil, err
	}
	return v.event(payload, sig.id)
}

// event returns the event in a payload whose signature is valid.
func (v *WebhookVerifier) event(payload []byte, id string) (*Event, error) {
	ev, err := ParseEvent(payload)
	switch {
	case err != nil:
		return nil, err
	case v.instanceID == "" || ev.InstanceID == v.instanceID:
		ev.ID = id
		return ev, nil
	case ev.InstanceID == "": // for example the dashboard's example event
		return nil, fmt.Errorf("%w: it has no instance_id", ErrBadEvent)
	}
	return nil, fmt.Errorf("%w: the event is from another Clerk instance", ErrBadSignature)
}

// signature verifies the signature of a payload, which the caller writes to it.
type signature struct {
	id     string
	header string      // one or more signatures
	macs   []hash.Hash // one per key
}

// Write implements io.Writer.
func (s *signature) Write(payload []byte) (int, error) {
	for _, mac := range s.macs {
		mac.Write(payload)
	}
	return len(payload), nil
}

// verify returns nil if one of the signatures is valid for what was written.
func (s *signature) verify() error {
	// Compare every key with every signature, so that the time does not depend on which of
	// them match.
	valid := false
	for _, mac := range s.macs {
		want := []byte("v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		for got := range strings.SplitSeq(s.header, " ") {
			if hmac.Equal([]byte(got), want) {
				valid = true
			}
		}
	}
	if !valid {
		return fmt.Errorf("%w: no signature matches; check that the secret is this endpoint's", ErrBadSignature)
	}
	return nil
}

// signature checks the headers. Its error is an ErrBadSignature.
func (v *WebhookVerifier) signature(h http.Header) (*signature, error) {
	s, err := v.readHeaders(h)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	return s, nil
}

func (v *WebhookVerifier) readHeaders(h http.Header) (*signature, error) {
	if v == nil || len(v.keys) == 0 {
		return nil, errors.New("the verifier has no keys; use NewWebhookVerifier")
	}
	id, err := singleHeader(h, "Svix-Id")
	if err != nil {
		return nil, err
	}
	timestamp, err := singleHeader(h, "Svix-Timestamp")
	if err != nil {
		return nil, err
	}
	signatures, err := splitHeader(h, "Svix-Signature")
	if err != nil {
		return nil, err
	}

	if !clerkID.MatchString(id) {
		return nil, errors.New("svix-id is not a message ID")
	}
	if !webhookTime.MatchString(timestamp) {
		return nil, errors.New("svix-timestamp is not a decimal number of seconds")
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return nil, err
	}
	switch age := v.now().Sub(time.Unix(seconds, 0)); {
	case age > webhookTolerance:
		return nil, fmt.Errorf("svix-timestamp is %v in the past; check this machine's clock", age.Truncate(time.Second))
	case age < -webhookTolerance:
		return nil, fmt.Errorf("svix-timestamp is %v in the future; check this machine's clock", -age.Truncate(time.Second))
	}
	if len(signatures) > maxSignatures {
		return nil, errors.New("svix-signature is too long")
	}
	s := &signature{id: id, header: signatures}
	for _, key := range v.keys {
		s.macs = append(s.macs, key())
	}
	_, _ = s.Write([]byte(id + "." + timestamp + "."))
	return s, nil
}

// singleHeader returns the value of a header that must occur exactly once. Of two values,
// some HTTP software uses the first and some the last.
func singleHeader(h http.Header, name string) (string, error) {
	values, err := headerValues(h, name)
	if err == nil && len(values) != 1 {
		err = fmt.Errorf("want exactly one %s header, got %d", strings.ToLower(name), len(values))
	}
	if err != nil {
		return "", err
	}
	return values[0], nil
}

// splitHeader is singleHeader for a value that may have been split at its commas. Values that
// still contain a comma were separate headers.
func splitHeader(h http.Header, name string) (string, error) {
	values, err := headerValues(h, name)
	if err == nil && len(values) > 1 && !slices.ContainsFunc(values, func(part string) bool { return strings.Contains(part, ",") }) {
		return strings.Join(values, ","), nil
	}
	if err != nil {
		return "", err
	}
	return singleHeader(h, name)
}

// headerValues returns the values of a header. Headers from adapters other than net/http can have
// any case. Two spellings of the name are an error, because the order of their values is unknown.
func headerValues(h http.Header, name string) (values []string, err error) {
	for key, vs := range h {
		switch {
		case http.CanonicalHeaderKey(key) != name || len(vs) == 0:
		case values != nil:
			return nil, fmt.Errorf("%s headers under two names", strings.ToLower(name))
		default:
			values = vs
		}
	}
	return values, nil
}

// WebhookHandler returns the HTTP handler for Clerk's webhooks. Mount it at any path and
// subscribe it to the events that [Service.HandleEvent] handles: user.created, user.updated and
// user.deleted, and for organizations five more. It panics if v is nil.
//
// It responds with:
//
//   - 204: the event was handled or is not relevant. It is also the response to a signed event
//     that cannot be read or is larger than 256 KiB, which is logged as an error; see [ErrBadEvent].
//   - 400: [ErrBadSignature], or a body that ended early or took too long. Nothing has changed.
//   - 405: the request is not a POST.
//   - 413: the body is larger than 4 MiB.
//   - 500: the store or Clerk failed, or [ErrUnconfirmed]. Svix retries after seconds, then
//     minutes, for more than a day. During a rate limit, Retry-After says when to retry.
//
// The body must arrive within the server's ReadTimeout or, if it has none, within 15 seconds. The
// default of 15 seconds needs a ResponseWriter that supports [http.ResponseController]. The
// ResponseWriter of [http.TimeoutHandler] does not, so set ReadTimeout if you use it. Failures are
// logged to Config.Logger.
func (s *Service) WebhookHandler(v *WebhookVerifier) http.Handler {
	if v == nil {
		panic("clerkinvite: WebhookHandler needs a verifier; see NewWebhookVerifier")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveWebhook(v, w, r) })
}

func (s *Service) serveWebhook(v *WebhookVerifier, w http.ResponseWriter, r *http.Request) {
	limitReading(w, r)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		return
	}
	ctx := r.Context()
	ev, err := v.receive(r.Header, http.MaxBytesReader(w, r.Body, maxWebhookBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, errBody):
		status, text := http.StatusBadRequest, errBody.Error()
		if errors.As(err, &tooLarge) {
			status, text = http.StatusRequestEntityTooLarge, "the body is too large"
		}
		s.log.WarnContext(ctx, "webhook body not read", slog.Any("err", logError(err)))
		http.Error(w, text, status)
		return
	case errors.Is(err, ErrBadEvent):
		s.log.ErrorContext(ctx, "webhook ignored: its event cannot be read",
			slog.String("id", r.Header.Get("Svix-Id")), slog.Any("err", logError(err)))
		w.WriteHeader(http.StatusNoContent)
		return
	case err != nil:
		s.log.WarnContext(ctx, "webhook rejected", slog.Any("err", logError(err)))
		status, text := HTTPError(err)
		http.Error(w, text, status)
		return
	}

	if _, err := s.HandleEvent(ctx, ev); err != nil {
		level := slog.LevelError
		if errors.Is(err, ErrUnconfirmed) {
			level = slog.LevelInfo
		}
		s.log.Log(ctx, level, "webhook failed; Svix will retry it",
			slog.Any("event", ev), slog.Any("err", logError(err)))
		if wait, ok := RetryAfter(err); ok {
			w.Header().Set("Retry-After", strconv.FormatInt(int64(math.Ceil(wait.Seconds())), 10))
		}
		// Not HTTPError: its text is for people, and its status need not be 5xx.
		http.Error(w, "internal server error", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// limitReading sets a read deadline, unless the server has one. The deadline also applies to reads
// after the handler has returned; net/http clears it when the body has arrived.
func limitReading(w http.ResponseWriter, r *http.Request) {
	server, _ := r.Context().Value(http.ServerContextKey).(*http.Server)
	if server != nil && server.ReadTimeout > 0 {
		return
	}
	// An error means that w does not support deadlines.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(webhookReadTimeout)) //nolint:forbidigo // the machine's clock
}

var errBody = errors.New("the body could not be read")

// receive returns the event in body. It does not read the body if the headers are invalid, and
// keeps at most maxWebhookEvent bytes of it in memory.
func (v *WebhookVerifier) receive(h http.Header, body io.Reader) (*Event, error) {
	sig, err := v.signature(h)
	if err != nil {
		return nil, err
	}
	payload, err := io.ReadAll(io.LimitReader(body, maxWebhookEvent))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBody, err)
	}
	_, _ = sig.Write(payload)
	rest := int64(0)
	if len(payload) == maxWebhookEvent {
		if rest, err = io.Copy(sig, body); err != nil {
			return nil, fmt.Errorf("%w: %w", errBody, err)
		}
	}
	if err := sig.verify(); err != nil {
		return nil, err
	}
	if rest > 0 {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrBadEvent, maxWebhookEvent)
	}
	return v.event(payload, sig.id)
}
