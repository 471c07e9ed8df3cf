package alerting

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/honeloop/hone/pkg/alerts"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
)

// DeliverOptions bound the deliveries.
type DeliverOptions struct {
	// Longest time for one post.
	Timeout time.Duration
	// How long a webhook that fails is tried before the alert goes to the dead
	// letter, with waits from RetryMin, doubled up to RetryMax.
	RetryFor, RetryMin, RetryMax time.Duration
}

// DefaultDeliverOptions try for ten minutes.
func DefaultDeliverOptions() DeliverOptions {
	return DeliverOptions{Timeout: 10 * time.Second, RetryFor: 10 * time.Minute, RetryMin: time.Second, RetryMax: time.Minute}
}

// Deliveries is what a Deliverer needs of the store.
type Deliveries interface {
	SaveAlerts(ctx context.Context, events []*alerts.Alert) error
	Delivered(ctx context.Context, project, eventID string) (map[string]bool, error)
	SaveDelivery(ctx context.Context, d Delivery) error
}

// Deliverer is the stage on hone.alerts: it stores alerts and posts them to the
// webhooks of their project, as Standard Webhooks says
// (github.com/standard-webhooks). What a webhook took is remembered, so that an
// event that comes again is not posted again; a crash between the two posts it
// twice, with one webhook-id.
//
// A webhook that failed for the whole time is tried once for each further alert,
// until it takes one.
type Deliverer struct {
	store    Deliveries
	settings func(project string) *projects.Settings
	opts     DeliverOptions
	client   *http.Client
	posts    metric.Int64Counter

	mu   sync.Mutex
	down map[string]bool // webhooks that failed for the whole time
}

// NewDeliverer makes one.
func NewDeliverer(store Deliveries, settings func(project string) *projects.Settings, opts DeliverOptions, meter metric.Meter) (*Deliverer, error) {
	posts, err := meter.Int64Counter("hone.alerts.deliveries", metric.WithDescription("alerts posted to webhooks, by result"))
	if err != nil {
		return nil, fmt.Errorf("create metric: %w", err)
	}
	return &Deliverer{
		store: store, settings: settings, opts: opts, posts: posts, down: map[string]bool{},
		client: &http.Client{
			// Addresses come from the operator's file alone: where one leads is not for
			// the one who answers to say.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// failed is why an alert goes to the dead letter.
type failed struct{ error }

func (failed) Reason() string { return "webhook_failed" }

// Process implements stage.Stage. Projects are served side by side, the alerts
// of one in order.
func (d *Deliverer) Process(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
	var dead *stage.BatchError
	var events []*alerts.Alert
	byProject := map[string][]int{}
	parsed := make([]*alerts.Alert, len(in))
	for i, r := range in {
		a, err := alerts.Parse(r.Value)
		if err == nil && string(r.Key) != a.ProjectID {
			err = fmt.Errorf("read alert: the record's key is not its project %q", a.ProjectID)
		}
		if err != nil {
			dead = dead.Fail(i, err)
			continue
		}
		parsed[i] = a
		events = append(events, a)
		byProject[a.ProjectID] = append(byProject[a.ProjectID], i)
	}
	if err := d.store.SaveAlerts(ctx, events); err != nil {
		return nil, err
	}
	var wg sync.WaitGroup
	errs := make([]error, len(in))
	for _, indexes := range byProject {
		wg.Go(func() {
			for _, i := range indexes {
				errs[i] = d.deliver(ctx, parsed[i], in[i].Value)
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		var f failed
		switch {
		case errors.As(err, &f):
			dead = dead.Fail(i, f)
		case err != nil:
			return nil, err
		}
	}
	if dead != nil {
		return nil, dead
	}
	return nil, nil
}

// deliver posts an alert to all webhooks of its project.
func (d *Deliverer) deliver(ctx context.Context, a *alerts.Alert, body []byte) error {
	hooks := d.settings(a.ProjectID).Alerts.Webhooks
	if len(hooks) == 0 {
		return nil
	}
	taken, err := d.store.Delivered(ctx, a.ProjectID, a.EventID())
	if err != nil {
		return err
	}
	var errs []error
	for _, hook := range hooks {
		address := public(hook.URL)
		if taken[address] {
			d.count(ctx, "repeated")
			continue
		}
		del := Delivery{Alert: a, URL: address}
		err := d.post(ctx, hook, a, body, &del)
		if ctx.Err() != nil && !del.Delivered {
			return fmt.Errorf("deliver alert %s: %w", a.Name, ctx.Err())
		}
		if err := d.store.SaveDelivery(ctx, del); err != nil {
			return err
		}
		d.mu.Lock()
		d.down[hook.URL] = err != nil
		d.mu.Unlock()
		if err != nil {
			d.count(ctx, "failed")
			errs = append(errs, fmt.Errorf("post alert to %s: %w", address, err))
			continue
		}
		d.count(ctx, "delivered")
	}
	if err := errors.Join(errs...); err != nil {
		return failed{err}
	}
	return nil
}

// post tries until the webhook takes the alert, refuses it for good, or the time
// is over.
func (d *Deliverer) post(ctx context.Context, hook projects.Webhook, a *alerts.Alert, body []byte, del *Delivery) error {
	d.mu.Lock()
	once := d.down[hook.URL]
	d.mu.Unlock()
	until := time.Now().Add(d.opts.RetryFor)
	wait := d.opts.RetryMin
	for {
		del.Attempts++
		del.At = time.Now()
		status, after, err := d.try(ctx, hook, a.EventID(), body)
		if err == nil && status/100 == 2 {
			del.Delivered, del.Answer = true, strconv.Itoa(status)
			return nil
		}
		if err == nil {
			err = fmt.Errorf("answered %d", status)
		}
		del.Answer = err.Error()
		if final(status) || once {
			return err
		}
		// Between half of the wait and all of it, so that senders spread.
		pause := max(wait/2+rand.N(wait/2+1), min(after, d.opts.RetryMax))
		wait = min(2*wait, d.opts.RetryMax)
		if time.Now().Add(pause).After(until) {
			return fmt.Errorf("%w, after %d attempts in %s", err, del.Attempts, d.opts.RetryFor)
		}
		d.count(ctx, "retried")
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// final says that a status will not change by trying again.
func final(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return false
	}
	return status/100 == 4
}

// try posts once. The secret is read each time, so that a new one counts at
// once.
func (d *Deliverer) try(ctx context.Context, hook projects.Webhook, id string, body []byte) (status int, after time.Duration, err error) {
	secrets, err := secrets(hook)
	if err != nil {
		return 0, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, hook.URL, bytes.NewReader(body))
	if err != nil {
		return 0, 0, errors.New("the URL cannot be used")
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/cloudevents+json")
	req.Header.Set("User-Agent", "hone")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", at)
	req.Header.Set("Webhook-Signature", sign(secrets, id, at, body))
	res, err := d.client.Do(req)
	if err != nil {
		// The URL in the error may have a token in its query.
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return 0, 0, err
	}
	defer res.Body.Close()
	// Read a little, so that the connection can be used again; what it says is
	// nobody's business here.
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, 4<<10)); err != nil && res.StatusCode/100 == 2 {
		return 0, 0, err
	}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
		after = time.Duration(min(s, 3600)) * time.Second
	}
	return res.StatusCode, after, nil
}

// sign is the webhook-signature header: one signature for each secret.
func sign(secrets [][]byte, id, at string, body []byte) string {
	var out []string
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(id + "." + at + "."))
		mac.Write(body)
		out = append(out, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	return strings.Join(out, " ")
}

// secrets are the lines of a webhook's secret: "whsec_" and base64, or any other
// text as it is.
func secrets(hook projects.Webhook) ([][]byte, error) {
	name, text := "secret_env "+hook.SecretEnv, os.Getenv(hook.SecretEnv)
	if hook.SecretFile != "" {
		data, err := os.ReadFile(hook.SecretFile)
		if err != nil {
			return nil, fmt.Errorf("read secret_file: %w", err)
		}
		name, text = "secret_file "+hook.SecretFile, string(data)
	}
	var out [][]byte
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		secret := []byte(line)
		if encoded, ok := strings.CutPrefix(line, "whsec_"); ok {
			var err error
			if secret, err = base64.StdEncoding.DecodeString(encoded); err != nil {
				return nil, fmt.Errorf("%s: what follows whsec_ is not base64", name)
			}
		}
		out = append(out, secret)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: empty, want the webhook's secret", name)
	}
	return out, nil
}

// public is a URL without what may be secret in it.
func public(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "?"
	}
	return u.Scheme + "://" + u.Host + u.EscapedPath()
}

func (d *Deliverer) count(ctx context.Context, result string) {
	d.posts.Add(ctx, 1, metric.WithAttributes(attribute.String("result", result)))
}
