package stream_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
)

func TestSecureConnections(t *testing.T) {
	tests := map[string][]streamtest.Option{
		"PLAIN":                  {streamtest.SASL(stream.Plain)},
		"SCRAM-SHA-256":          {streamtest.SASL(stream.ScramSHA256)},
		"SCRAM-SHA-512":          {streamtest.SASL(stream.ScramSHA512)},
		"PLAIN and TLS":          {streamtest.SASL(stream.Plain), streamtest.TLS()},
		"SCRAM-SHA-256 and TLS":  {streamtest.SASL(stream.ScramSHA256), streamtest.TLS()},
		"SCRAM-SHA-512 and TLS":  {streamtest.SASL(stream.ScramSHA512), streamtest.TLS()},
		"TLS with a client cert": {streamtest.ClientCert()},
	}
	for name, opts := range tests {
		t.Run(name, func(t *testing.T) {
			// The broker's topics, what is written, the group and what is read
			// each go by other clients.
			b := streamtest.StartBroker(t, opts...)
			r, _ := startRunner(t, runnerConfig(stream.TopicEvents), b.Config(), stage.Func(forward))
			b.Write(t, event("a", 0))
			if got := b.Read(t, stream.TopicSignals, 1); string(got[0].Value) != "a-0" {
				t.Errorf("got %s, want a-0", got[0].Value)
			}
			eventually(t, "ready", func() bool { return r.Ready(context.Background()) == nil })
		})
	}
}

func TestSecureConnectionsAreRefused(t *testing.T) {
	sasl := []streamtest.Option{streamtest.SASL(stream.ScramSHA256), streamtest.TLS()}
	tests := map[string]struct {
		opts   []streamtest.Option
		change func(*stream.Config)
		want   string
	}{
		// The in-process broker only ends the connection.
		"a wrong password":    {sasl, func(c *stream.Config) { c.SASL.Password = "other" }, "(?i)authentication|EOF"},
		"an unknown user":     {[]streamtest.Option{streamtest.SASL(stream.Plain)}, func(c *stream.Config) { c.SASL.Username = "nobody" }, "(?i)authentication|EOF"},
		"an unknown CA":       {sasl, func(c *stream.Config) { c.TLS.CAFile = "" }, "unknown authority"},
		"another server name": {sasl, func(c *stream.Config) { c.TLS.ServerName = "other.test" }, "other.test"},
		"no client cert":      {[]streamtest.Option{streamtest.ClientCert()}, func(c *stream.Config) { c.TLS.CertFile, c.TLS.KeyFile = "", "" }, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := streamtest.StartBroker(t, tt.opts...)
			cfg := b.Config()
			tt.change(&cfg)
			start := time.Now()
			err := newPublisher(t, cfg).Publish(context.Background(), event("a", 0))
			if !errors.Is(err, stream.ErrUnavailable) || !regexp.MustCompile(tt.want).MatchString(err.Error()) {
				t.Errorf("got %v, want ErrUnavailable and %q", err, tt.want)
			}
			if d := time.Since(start); d > cfg.PublishTimeout+time.Second {
				t.Errorf("took %s", d)
			}
			if n := len(b.All(t, stream.TopicEvents)); n != 0 {
				t.Errorf("%d records, want none", n)
			}
		})
	}
}

func TestServerNameIsThatOfTheCertificate(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.SASL(stream.ScramSHA512), streamtest.TLS())
	cfg := b.Config()
	cfg.TLS.ServerName = streamtest.ServerName
	if err := newPublisher(t, cfg).Publish(context.Background(), event("a", 0)); err != nil {
		t.Error(err)
	}
}

func TestSecurityConfigNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.pem")
	if err := os.WriteFile(garbage, []byte("not a certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing.pem")
	tests := map[string]struct {
		change func(*stream.Config)
		want   string
	}{
		"mechanism":          {func(c *stream.Config) { c.SASL = stream.SASL{Mechanism: "GSSAPI"} }, "sasl.mechanism:"},
		"no mechanism":       {func(c *stream.Config) { c.SASL = stream.SASL{Username: "u", Password: "p"} }, "sasl.mechanism:"},
		"no username":        {func(c *stream.Config) { c.SASL = stream.SASL{Mechanism: stream.Plain, Password: "p"} }, "sasl.username:"},
		"no password":        {func(c *stream.Config) { c.SASL = stream.SASL{Mechanism: stream.ScramSHA256, Username: "u"} }, "sasl.password:"},
		"not enabled":        {func(c *stream.Config) { c.TLS = stream.TLS{CAFile: missing} }, "tls.enabled:"},
		"cert without key":   {func(c *stream.Config) { c.TLS = stream.TLS{Enabled: true, CertFile: missing} }, "tls.cert_file:"},
		"no CA file":         {func(c *stream.Config) { c.TLS = stream.TLS{Enabled: true, CAFile: missing} }, "tls.ca_file:"},
		"CA file of garbage": {func(c *stream.Config) { c.TLS = stream.TLS{Enabled: true, CAFile: garbage} }, "tls.ca_file:"},
		"cert of garbage":    {func(c *stream.Config) { c.TLS = stream.TLS{Enabled: true, CertFile: garbage, KeyFile: garbage} }, "tls.cert_file"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cfg := stream.DefaultConfig()
			cfg.Brokers = []string{"127.0.0.1:1"}
			tt.change(&cfg)
			_, err := stream.NewPublisher(cfg, telemetry.Discard())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want one that names %s", err, tt.want)
			}
		})
	}
}
