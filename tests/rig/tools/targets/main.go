// targets prints what a Prometheus would scrape by a configuration: a JSON object a line, {"job": …, "labels": {…}}, whenever its
// discovery of Kubernetes says something new. It discovers and relabels by Prometheus' own packages; nothing is scraped.
//
// usage: targets CONFIG KUBECONFIG
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "targets:", err)
		os.Exit(1)
	}
}

func run(file, kubeconfig string) error {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	parsed, err := config.LoadFile(file, false, logger)
	if err != nil {
		return err
	}
	jobs := map[string]*config.ScrapeConfig{}
	discoveries := map[string]discovery.Configs{}
	for _, job := range parsed.ScrapeConfigs {
		jobs[job.JobName] = job
		discoveries[job.JobName] = job.ServiceDiscoveryConfigs
		for _, one := range job.ServiceDiscoveryConfigs {
			// In the cluster it is found without one.
			one.(*kubernetes.SDConfig).KubeConfig = kubeconfig
		}
	}
	registry := prometheus.NewRegistry()
	metrics, err := discovery.CreateAndRegisterSDMetrics(registry)
	if err != nil {
		return err
	}
	manager := discovery.NewManager(context.Background(), logger, registry, metrics)
	go manager.Run()
	if err := manager.ApplyConfig(discoveries); err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for groups := range manager.SyncCh() {
		for name, found := range groups {
			for _, group := range found {
				builder := labels.NewBuilder(labels.EmptyLabels())
				targets, failed := scrape.TargetsFromGroup(group, jobs[name], nil, builder)
				for _, err := range failed {
					return err
				}
				for _, target := range targets {
					said := map[string]any{"job": name, "url": target.URL().String(), "labels": target.Labels(builder).Map()}
					if err := out.Encode(said); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}
