package clerkapi

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/clerk/clerk-sdk-go/v2"

	"github.com/clerkinvite/clerkinvite"
)

// Defaults of [Options].
const (
	DefaultTimeout       = 5 * time.Second
	DefaultCreateTimeout = 20 * time.Second
)

// A connection over HTTP/2 that has been silent for so long gets a ping, and is closed if there
// is no response. Without pings, requests would time out on a dead connection for minutes.
const (
	pingAfter   = 10 * time.Second
	pingTimeout = 5 * time.Second
)

// Options configures a [Client]. The zero value is right for production.
type Options struct {
	// BaseURL is the URL of the Backend API, http or https, without credentials, query and fragment.
	// If it does not end in /v1, New appends it, so that a URL for another Clerk SDK works too. Use
	// http only in tests, because it sends the secret key unencrypted. Defaults to
	// https://api.clerk.com/v1.
	BaseURL string

	// HTTPClient provides the Transport. Its Timeout caps the two limits below. Its
	// Jar and CheckRedirect are not used. The Transport must not send a
	// POST twice. Defaults to a copy of http.DefaultTransport that also pings connections over
	// HTTP/2, so that a dead connection is replaced within 15 seconds. Your own Transport
	// does the same if its HTTP2.SendPingTimeout is set.
	HTTPClient *http.Client

	// Timeout limits each request of a look-up (FindUsers, GetUser, ListInvitations,
	// FindMemberships), from dialing to the last byte of the response. A look-up tries each
	// request at most three times. Defaults to 5 s.
	Timeout time.Duration

	// CreateTimeout limits each request that creates or revokes invitations, AddMember and RemoveMember.
	// A shorter limit is not safer: after a timeout it is unknown whether Clerk sent the email, and the
	// member waits until the library has checked. Defaults to 20 s.
	CreateTimeout time.Duration
}

// Client implements [clerkinvite.ClerkAPI] and [clerkinvite.OrganizationAPI]. It is safe for
// concurrent use. Nothing prints its key.
type Client struct {
	key     clerkinvite.Secret
	baseURL string
	// send is a transport's RoundTrip: a func, so that fmt cannot follow it into the connections.
	send func(*http.Request) (*http.Response, error)

	lookup timeLimit
	create timeLimit
	pause  time.Duration // before the first retry of a look-up, ±50 %
}

var (
	_ clerkinvite.ClerkAPI        = (*Client)(nil)
	_ clerkinvite.OrganizationAPI = (*Client)(nil)
)

// timeLimit is how long a request may take, and the name of the option that sets it.
type timeLimit struct {
	d      time.Duration
	option string
}

// New returns a Client for the Clerk instance of secretKey (sk_live_… or sk_test_…). It
// makes no request. opts may be nil; New copies it.
//
// Errors: one error that joins everything that is wrong with the key and the options.
func New(secretKey string, opts *Options) (*Client, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	var faults []error
	fault := func(text string) { faults = append(faults, errors.New("clerkapi: "+text)) }

	switch {
	case secretKey == "":
		fault("the secret key is empty")
	case strings.ContainsFunc(secretKey, func(r rune) bool { return r <= ' ' || r > '~' }):
		fault("the secret key contains white space or other invalid characters, often a line break at the end")
	case strings.HasPrefix(secretKey, "pk_"):
		fault("the key is a publishable key (pk_…); the Backend API requires the secret key (sk_…)")
	}

	base := strings.TrimRight(o.BaseURL, "/")
	if o.BaseURL == "" {
		base = clerk.APIURL
	}
	// The parser's error contains the URL, which can contain a password.
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		fault("Options.BaseURL must have the form https://host/path")
	case u.User != nil || strings.ContainsAny(base, "?#"):
		fault("Options.BaseURL must not have a user, a query or a fragment")
	case !strings.HasSuffix(u.Path, "/v1"):
		base += "/v1"
	}

	c := &Client{
		key: clerkinvite.NewSecret(secretKey), baseURL: base,
		send:   defaultTransport().RoundTrip,
		lookup: timeLimit{DefaultTimeout, "Options.Timeout"},
		create: timeLimit{DefaultCreateTimeout, "Options.CreateTimeout"},
		pause:  200 * time.Millisecond,
	}
	if o.Timeout < 0 || o.CreateTimeout < 0 {
		fault("Options.Timeout and Options.CreateTimeout must not be negative; 0 means the default")
	}
	if o.Timeout > 0 {
		c.lookup.d = o.Timeout
	}
	if o.CreateTimeout > 0 {
		c.create.d = o.CreateTimeout
	}
	if o.HTTPClient != nil {
		if o.HTTPClient.Transport != nil {
			c.send = o.HTTPClient.Transport.RoundTrip
		}
		for _, limit := range []*timeLimit{&c.lookup, &c.create} {
			if t := o.HTTPClient.Timeout; t > 0 && t < limit.d {
				*limit = timeLimit{t, "Options.HTTPClient.Timeout"}
			}
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return c, nil
}

// defaultTransport returns a copy of http.DefaultTransport with pings, or the value that the host has
// replaced it with.
func defaultTransport() http.RoundTripper {
	transport, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	transport = transport.Clone()
	if transport.HTTP2 == nil {
		transport.HTTP2 = new(http.HTTP2Config)
	}
	if transport.HTTP2.SendPingTimeout == 0 {
		transport.HTTP2.SendPingTimeout, transport.HTTP2.PingTimeout = pingAfter, pingTimeout
	}
	return transport
}

// backend returns the SDK's backend for one request, because the SDK writes into its config.
func (c *Client) backend(rt http.RoundTripper) clerk.Backend {
	url, key := c.baseURL, c.key.Reveal()
	return clerk.NewBackend(&clerk.BackendConfig{HTTPClient: &http.Client{Transport: rt}, URL: &url, Key: &key})
}
