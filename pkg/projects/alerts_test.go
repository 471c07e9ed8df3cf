package projects

import (
	"strings"
	"testing"
	"time"
)

func TestAlertsAreRead(t *testing.T) {
	p, err := Read(write(t, `
projects:
  shop:
    alerts:
      webhooks: [{url: "https://example.org/hook", secret_env: SHOP_SECRET}]
      watch:
        - {name: unhappy, metric: dissatisfaction, filter: {environment: production}, above: 0.3, for: 10m, severity: high}
        - {name: worse, metric: "category:outdated", change: rise}
`))
	if err != nil {
		t.Fatal(err)
	}
	a := p.Settings("shop").Alerts
	if len(a.Webhooks) != 1 || len(a.Watch) != 2 || *a.Watch[0].Above != 0.3 || a.Watch[0].For != 10*time.Minute {
		t.Errorf("alerts %+v", a)
	}
	if w := a.Watch[0].WithDefaults(); w.MinCount != 50 || w.Window != time.Hour {
		t.Errorf("with defaults %+v", w)
	}
	if len(p.Settings("other").Alerts.Watch) != 0 {
		t.Error("another project watches too")
	}
}

func TestAlertsRefuseWithTheKey(t *testing.T) {
	for want, part := range map[string]string{
		"webhooks[0].url":                     `webhooks: [{url: "ftp://x", secret_env: S}]`,
		"webhooks[0].secret_env, secret_file": `webhooks: [{url: "https://x"}]`,
		"watch[0].metric":                     `watch: [{name: n, metric: joy, above: 0.1}]`,
		"watch[0].name":                       `watch: [{metric: response, above: 0.1}]`,
		"watch[0].filter":                     `watch: [{name: n, metric: response, above: 0.1, filter: {user: x}}]`,
		"want one of them":                    `watch: [{name: n, metric: response, above: 0.1, below: 0.2}]`,
		"a share":                             `watch: [{name: n, metric: response, above: 10}]`,
		"change":                              `watch: [{name: n, metric: response, change: up}]`,
		"a change has none":                   `watch: [{name: n, metric: response, change: rise, window: 2h}]`,
		"is there twice":                      `watch: [{name: n, metric: response, above: 0.1}, {name: n, metric: response, above: 0.2}]`,
		"severity":                            `watch: [{name: n, metric: response, above: 0.1, severity: bad}]`,
		"window: want":                        `watch: [{name: n, metric: response, above: 0.1, window: 9000h}]`,
	} {
		_, err := Read(write(t, "defaults: {alerts: {"+part+"}}"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", part, err, want)
		}
	}
}
