docker ps -q | xargs -r docker rm -f
docker network create --internal --subnet 172.18.0.0/16 back
docker network create --subnet 172.19.0.0/16 front
docker run -d --name db --network back nginx
docker run -d --name web --network front --ip 172.19.0.2 nginx
docker network connect back web
rm -f /etc/lb/lb.toml
lb-agent run
